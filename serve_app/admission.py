"""How much may be under way at a time: more is refused at once, before it costs a backend anything.

There is no queue here. A request that waited for a place would wait as long as a whole answer
takes, many times its usual first token; engines have queues of their own, within what a replica
takes. What waits for a model that starts is `warming`'s.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deployments.errors import BackendOverloaded
from serve_app.config import RouterSettings
from serve_app.directory import Application

MIN_RETRY_S = 1.0
MAX_RETRY_S = 30.0
NEWEST_SHARE = 0.1  # of the last answer in the mean of how long answers take


@dataclass(slots=True)
class Ongoing:
    """What one application has in hand for this router, and how long its answers take."""

    num_requests: int = 0
    answer_s: float | None = None

    @property
    def retry_after_s(self) -> float:
        """By then about as many have been answered as are being answered now."""
        return min(MAX_RETRY_S, max(MIN_RETRY_S, self.answer_s or 0.0))

    def ended(self, took_s: float) -> None:
        """Books the end of an answer, good or bad."""
        self.num_requests -= 1
        mean_s = took_s if self.answer_s is None else self.answer_s
        self.answer_s = mean_s + NEWEST_SHARE * (took_s - mean_s)


@dataclass(slots=True)
class Visit:
    """A request in the router, whose body counts from when its size is known."""

    admission: "Admission"
    max_bytes: int
    num_bytes: int = 0

    def take(self, num_bytes: int) -> None:
        """Room for a body that is so large, so far. Raises: BackendOverloaded."""
        more = num_bytes - self.num_bytes
        if more <= 0:
            return
        if self.admission.num_bytes + more > self.max_bytes:
            raise BackendOverloaded(
                "The router has no room for the request's body now.", retry_after_s=MIN_RETRY_S
            )
        self.num_bytes = num_bytes
        self.admission.num_bytes += more


class Admission:
    """What this router replica has in hand, in all and by application. It counts, and no more:
    what it costs does not depend on how many models there are."""

    def __init__(self) -> None:
        self.num_requests = 0
        self.num_bytes = 0
        self._ongoing: dict[str, Ongoing] = {}

    def ongoing(self, application: str) -> int:
        """How many requests an application has in hand for this router."""
        found = self._ongoing.get(application)
        return found.num_requests if found else 0

    @contextmanager
    def visit(self, settings: RouterSettings) -> Iterator[Visit]:
        """A place in the router, until the whole answer is given. Raises: BackendOverloaded."""
        if self.num_requests >= settings.max_ongoing_requests:
            raise BackendOverloaded("The router is full.", retry_after_s=MIN_RETRY_S)
        self.num_requests += 1
        visit = Visit(self, settings.max_ongoing_bytes)
        try:
            yield visit
        finally:
            self.num_requests -= 1
            self.num_bytes -= visit.num_bytes

    @contextmanager
    def place(self, application: Application, was_held: bool = False) -> Iterator[None]:
        """A place at an application. One that has waited for it to start is not sent away now.

        Raises: BackendOverloaded.
        """
        name, room = application.name, application.room
        ongoing = self._ongoing.get(name) or Ongoing()
        if room is not None and ongoing.num_requests >= room and not was_held:
            raise BackendOverloaded(
                "The model has as much to do as it takes.", retry_after_s=ongoing.retry_after_s
            )
        self._ongoing[name] = ongoing
        ongoing.num_requests += 1
        began_s = time.monotonic()
        try:
            yield
        finally:
            ongoing.ended(time.monotonic() - began_s)
            if ongoing.num_requests == 0:
                del self._ongoing[name]
