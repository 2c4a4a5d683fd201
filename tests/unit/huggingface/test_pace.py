import pytest

from deployments.errors import BackendOverloaded
from deployments.huggingface.engine.pace import NUM_ENDS, Pace
from deployments.huggingface.engine.queue import Queue

from .scheduling import Asked


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_wait_is_that_of_the_measured_rate() -> None:
    """Who is turned away is told how long those before it take, from 1 to 60 seconds."""
    clock = Clock()
    queue = Queue(1, Pace(clock))
    for _ in range(10):
        clock.now_s += 3
        queue.pace.end(2)
    queue.put([Asked((1,), 1) for _ in range(8)])
    with pytest.raises(BackendOverloaded) as full:
        queue.put([Asked((1,), 1)])
    assert full.value.retry_after_s == 8 * 1.5


def test_the_wait_is_bounded() -> None:
    """Neither a stampede nor a standstill gives a time that helps nobody."""
    clock = Clock()
    pace = Pace(clock)
    assert pace.wait_s(1000) == 1
    clock.now_s += 3
    assert pace.wait_s(5) == 15  # nothing has ended for so long: none is faster than that
    clock.now_s += 1000
    assert pace.wait_s(5) == 60


def test_old_ends_are_forgotten_and_idle_time_does_not_count() -> None:
    """The rate is that of the last ends, in the time in which there was work."""
    clock = Clock()
    pace = Pace(clock)
    for _ in range(NUM_ENDS):
        clock.now_s += 50
        pace.end(1)
    for _ in range(NUM_ENDS):
        pace.pause()
        clock.now_s += 10_000
        pace.resume()
        clock.now_s += 2
        pace.end(1)
    assert pace.wait_s(10) == pytest.approx(20)
