"""The requests that wait for the engine: first come, first served, and not too many of them."""

import threading
from collections import deque
from collections.abc import Callable, Iterable

from deployments.errors import BackendOverloaded, BackendUnavailable
from deployments.huggingface.engine.pace import Pace
from deployments.huggingface.engine.sequence import Sequence

NumAdmitted = Callable[[list[Sequence]], int]


def none(_: list[Sequence]) -> int:
    """All of them wait."""
    return 0


class Queue:
    """Filled by callers, emptied by the engine's thread. All methods may be called from any."""

    def __init__(self, max_requests: int, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self._max_requests = max_requests
        self._changed = threading.Condition()
        self._requests: deque[deque[Sequence]] = deque()
        self._closed: BackendUnavailable | None = None

    def __len__(self) -> int:
        """How many sequences wait."""
        with self._changed:
            return sum(map(len, self._requests))

    def put(self, sequences: Iterable[Sequence], num_admitted: NumAdmitted = none) -> None:
        """Puts the sequences of one request at the end. `num_admitted` says how many of those that
        are here, in their order, the next steps take: they do not count as waiting.

        Raises: BackendOverloaded, with the time in which those that wait now will have begun;
        BackendUnavailable once closed.
        """
        with self._changed:
            if self._closed is not None:
                raise BackendUnavailable(self._closed.message)
            if self._is_full(num_admitted):
                raise BackendOverloaded(
                    f"The model's queue is full: {self._max_requests} requests are waiting. "
                    "Please try again later.",
                    retry_after_s=self.pace.wait_s(sum(map(len, self._requests))),
                )
            self._requests.append(deque(sequences))
            self._changed.notify()

    def _is_full(self, num_admitted: NumAdmitted) -> bool:
        if len(self._requests) < self._max_requests:
            return False
        left = num_admitted([sequence for request in self._requests for sequence in request])
        num_waiting = len(self._requests)
        for request in self._requests:
            left -= len(request)
            num_waiting -= left >= 0
        return num_waiting >= self._max_requests

    def put_back(self, sequences: Iterable[Sequence]) -> None:
        """Puts sequences that have been taken at the front, each for itself."""
        with self._changed:
            self._requests.extendleft(deque([s]) for s in reversed(list(sequences)))

    def take(self, fits: Callable[[Sequence], bool]) -> Sequence | None:
        """The first sequence, if there is one and it fits: none overtakes it."""
        with self._changed:
            if not self._requests or not fits(self._requests[0][0]):
                return None
            sequence = self._requests[0].popleft()
            if not self._requests[0]:
                self._requests.popleft()
            return sequence

    def cancel(self, sequences: Iterable[Sequence]) -> None:
        """Marks sequences as cancelled, and forgets those that wait."""
        with self._changed:
            for sequence in sequences:
                sequence.cancelled = True
            left = (deque(s for s in request if not s.cancelled) for request in self._requests)
            self._requests = deque(request for request in left if request)

    def wait(self) -> bool:
        """Returns when a sequence waits: True; or when the queue is closed: False."""
        with self._changed:
            self.pace.pause()
            self._changed.wait_for(lambda: self._requests or self._closed)
            self.pace.resume()
            return self._closed is None

    @property
    def closed(self) -> BackendUnavailable | None:
        """Why nothing is taken any more."""
        return self._closed

    def close(self, reason: BackendUnavailable) -> None:
        """From now on nothing is taken, for the first reason given; wakes who waits."""
        with self._changed:
            self._closed = self._closed or reason
            self._changed.notify_all()

    def clear(self) -> list[Sequence]:
        """Empties the queue; returns what was in it."""
        with self._changed:
            left = [sequence for request in self._requests for sequence in request]
            self._requests.clear()
            return left
