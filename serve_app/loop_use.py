"""How busy an event loop is: the one CPU that it can use is what a router has."""

import time


class LoopUse:
    """CPU seconds per second of the thread that asks. To be made and asked in the loop's thread."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.monotonic(), time.thread_time()

    def since_last(self) -> float:
        """Since the last time it was asked, 0 to 1."""
        wall_s, cpu_s = time.monotonic(), time.thread_time()
        passed_s, used_s = wall_s - self._wall_s, cpu_s - self._cpu_s
        self._wall_s, self._cpu_s = wall_s, cpu_s
        return min(1.0, max(0.0, used_s / passed_s)) if passed_s > 0 else 0.0
