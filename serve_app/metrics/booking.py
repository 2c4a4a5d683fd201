"""One request, from its arrival to its end, as it goes into the books."""

from time import perf_counter

from deployments.errors import BackendOverloaded, ModelWarming, RequestError, RoundhouseError
from deployments.exchange import Tail
from serve_app.metrics import catalog
from serve_app.metrics.books import Books, Labels, Observations

NOBODY = ("(none)", "(none)", "(none)")  # no model that exists was asked for
CLIENT_GONE = 499  # as nginx has it
CAPACITY = "capacity"
REFUSED_STATUS = frozenset({401, 403, 408})  # our key, our haste: no fault of the client's


class Booking:
    """Whose the request is say `asked` and `answered`; `close` books it, whatever became of it."""

    __slots__ = (
        "_after",
        "_asked",
        "_began_at",
        "_books",
        "_error",
        "_first_at",
        "_flying",
        "_gaps",
        "_labels",
        "_last_at",
        "_status",
        "_tail",
    )

    def __init__(self, books: Books, flying: dict[Labels, int]) -> None:
        self._books = books
        self._flying = flying
        self._began_at = perf_counter()
        self._asked: Labels | None = None
        self._labels: Labels = NOBODY
        self._status: int | None = None
        self._error: RoundhouseError | None = None
        self._after: object = None
        self._gaps: Observations | None = None
        self._first_at = self._last_at = 0.0
        self._tail: Tail | None = None

    def asked(self, labels: Labels) -> None:
        """The model that the request is for; from here on it is in flight."""
        self._asked = self._labels = labels
        self._flying[labels] = self._flying.get(labels, 0) + 1

    def answered(self, labels: Labels, status: int, after: object) -> None:
        """An answer has begun: by whom, and after which failure of the model asked, if any."""
        self._labels, self._status, self._after = labels, status, after

    def piece(self) -> None:
        """A piece of the answer's stream is there."""
        now = perf_counter()
        if self._gaps is None:
            self._first_at = now
            self._gaps = self._books.observations(catalog.INTER_TOKEN, self._labels)
        else:
            self._gaps.add(now - self._last_at)
        self._last_at = now

    def used(self, tail: Tail) -> None:
        """What the answer cost."""
        self._tail = tail

    def failed(self, error: RoundhouseError) -> None:
        """The request ended in an error of ours."""
        self._error, self._status = error, error.status

    def gone(self) -> None:
        """The client left."""
        self._status = CLIENT_GONE

    def close(self) -> None:
        """The request is over."""
        if self._asked is not None:
            self._flying[self._asked] -= 1
        status = self._status or CLIENT_GONE
        self._add(catalog.REQUESTS, str(status))
        if self._error is not None:
            self._book_error(self._error)
        elif status < 400:
            self._book_good()
        elif status != CLIENT_GONE:
            self._add(catalog.ERRORS, f"status_{status}", fault_of_status(status))
        if self._gaps is not None:
            self._observe(catalog.FIRST_TOKEN, self._first_at - self._began_at)
        if self._tail is not None:
            self._book_tokens(self._tail)

    def _book_good(self) -> None:
        self._observe(catalog.REQUEST_DURATION, perf_counter() - self._began_at)
        if self._after is not None and self._asked is not None:
            answered_by, reason = self._labels[1], reason_of(self._after)
            self._books.add(catalog.FALLBACKS, (*self._asked, answered_by, reason))

    def _book_error(self, error: RoundhouseError) -> None:
        code = error.code or "internal_error"
        fault = fault_of(error)
        self._add(catalog.ERRORS, code, fault)
        if fault == CAPACITY:
            self._add(catalog.SHED, code)

    def _book_tokens(self, tail: Tail) -> None:
        self._books.add(catalog.PROMPT_TOKENS, self._labels, tail.prompt_tokens)
        self._books.add(catalog.COMPLETION_TOKENS, self._labels, tail.completion_tokens)
        if self._last_at > self._first_at and tail.completion_tokens > 1:
            streamed_s = self._last_at - self._first_at
            self._observe(catalog.OUTPUT_TOKEN, streamed_s / (tail.completion_tokens - 1))

    def _add(self, metric: catalog.Metric, *more: str) -> None:
        self._books.add(metric, (*self._labels, *more))

    def _observe(self, metric: catalog.Metric, value: float) -> None:
        self._books.observations(metric, self._labels).add(value)


def fault_of(error: RoundhouseError) -> str:
    """Whose fault an error of ours is."""
    if isinstance(error, RequestError):
        return "client"
    return CAPACITY if isinstance(error, ModelWarming | BackendOverloaded) else "server"


def fault_of_status(status: int) -> str:
    """Whose fault an error is that a backend answered with."""
    if status == 429:
        return CAPACITY
    return "server" if status >= 500 or status in REFUSED_STATUS else "client"


def reason_of(failure: object) -> str:
    """Why another model answered: of the first failure."""
    if isinstance(failure, ModelWarming):
        return "warming"
    return "overloaded" if isinstance(failure, BackendOverloaded) else "failed"
