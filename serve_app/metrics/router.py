"""What a router counts: its requests, whom it holds, and what it sees of the applications."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import get_args

from serve_app.directory import Application, Cluster, Directory, State
from serve_app.metrics import catalog
from serve_app.metrics.booking import NOBODY, Booking
from serve_app.metrics.books import Books, Labels
from serve_app.metrics.sparse import Sparse

STATES: tuple[State, ...] = get_args(State)


class RouterMetrics:
    """The router's books. Names that clients make up never become labels."""

    def __init__(self, cluster: Cluster, directory: Directory) -> None:
        self._cluster = cluster
        self._directory = directory
        self._flying: dict[Labels, int] = {}
        self._held: dict[Labels, int] = {}
        self.books = Books(catalog.ROUTER)
        self.books.read(catalog.IN_FLIGHT, lambda: self._flying)
        self.books.read(catalog.HELD, Sparse(lambda: self._held))
        self.books.read(catalog.QUEUED, Sparse(self._queued))
        self.books.read(catalog.READY, lambda: {(): float(directory.ready)})
        self.books.read(catalog.APPLICATION_STATE, Sparse(self._states))
        self.books.read(catalog.REPLICAS, Sparse(self._replicas))

    @contextmanager
    def request(self, method: str) -> Iterator[Booking]:
        """Books what becomes of a request in the block, if it is one for a model: a POST."""
        booking = Booking(self.books, self._flying)
        try:
            yield booking
        except BaseException:
            booking.gone()  # cancelled, or nobody is left to be told of an error
            raise
        finally:
            if method == "POST":
                booking.close()

    def labels(self, model: str, application: Application | None) -> Labels:
        """Of a model that the router has resolved. An application that has not yet said what it
        serves takes any `MODEL:NAME`; that is booked as its own."""
        if application is None:
            return NOBODY
        known = model in self._directory.models
        return (application.name, model if known else application.name, application.backend)

    @contextmanager
    def holding(self, application: Application) -> Iterator[None]:
        """A request waits for an application in the block."""
        labels = (application.name, application.backend)
        # Told as zero from now on: a rate would not see the first of what comes so seldom.
        held = self.books.observations(catalog.HELD_DURATION, labels)
        began_at = perf_counter()
        self._held[labels] = self._held.get(labels, 0) + 1
        try:
            yield
        finally:
            self._held[labels] -= 1
            held.add(perf_counter() - began_at)

    @contextmanager
    def waking(self, application: Application) -> Iterator[None]:
        """A model without replicas is started in the block; where that fails nothing is booked."""
        labels = (application.name, application.backend)
        starts = self.books.observations(catalog.COLD_START, labels)  # as above: zero from now on
        began_at = perf_counter()
        yield
        starts.add(perf_counter() - began_at)

    def _queued(self) -> Mapping[Labels, float]:
        applications = self._directory.applications
        return {(a.name, a.backend): self._cluster.num_queued(a) for a in applications}

    def _states(self) -> Mapping[Labels, float]:
        return {
            (a.name, a.backend, state): float(a.state == state)
            for a in self._directory.applications
            for state in STATES
        }

    def _replicas(self) -> Mapping[Labels, float]:
        return {
            (a.name, a.backend, state.lower()): float(num)
            for a in self._directory.applications
            for state, num in {"RUNNING": 0, **a.replicas}.items()
        }
