"""How fast sequences end while there is work: what a client that is turned away is told by.

Time without work does not count, so a quiet night does not make the morning look slow.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

NUM_ENDS = 64
MIN_WAIT_S = 1.0
MAX_WAIT_S = 60.0


class Pace:
    """Fed by the engine's thread, read by callers. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._idle_s = 0.0
        self._idle_since: float | None = None
        self._ends: deque[float] = deque([self._busy_clock()], maxlen=NUM_ENDS)
        self._lock = threading.Lock()

    def pause(self) -> None:
        """There is no work from now on."""
        self._idle_since = self._clock()

    def resume(self) -> None:
        """There is work again."""
        if self._idle_since is not None:
            self._idle_s += self._clock() - self._idle_since
            self._idle_since = None

    def end(self, count: int) -> None:
        """So many sequences have ended."""
        with self._lock:
            self._ends.extend([self._busy_clock()] * count)

    def wait_s(self, num_waiting: int) -> float:
        """When so many sequences that wait may have begun: whole ends must make room for them."""
        with self._lock:
            num_ends = len(self._ends) - 1
            elapsed_s = self._busy_clock() - self._ends[0]
        predicted = num_waiting * elapsed_s / max(1, num_ends)
        return min(MAX_WAIT_S, max(MIN_WAIT_S, predicted))

    def _busy_clock(self) -> float:
        return self._clock() - self._idle_s
