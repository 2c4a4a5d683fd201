"""The clock of an event loop, which a test may set forward: what is due later is due now."""

import asyncio


class LoopClock:
    """The running loop's time from here to its end, ahead of the machine's by what was skipped.
    For a loop that ends with the test: what it still waits for then is due by this clock."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._machines, self._ahead_s = loop.time, 0.0
        loop.time = self  # type: ignore[method-assign]

    def __call__(self) -> float:
        return self._machines() + self._ahead_s

    def skip(self, seconds: float) -> None:
        """Lets so much time pass at once. To be called in the loop."""
        self._ahead_s += seconds
