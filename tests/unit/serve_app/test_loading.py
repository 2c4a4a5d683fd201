"""The board that loading replicas tell of themselves, without Ray; with it: tests/integration."""

from deployments.progress import Progress, Shard
from serve_app.loading import FORGET_S, Board

HALF = Progress("loading weights", (Shard("model.safetensors", 1, 2),))


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_newest_word_of_each_replica_counts() -> None:
    """Replicas of one application stand beside each other; one that is done is gone."""
    board = Board()
    board.tell("m", "b", Progress("downloading"))
    board.tell("m", "a", Progress("downloading"))
    board.tell("m", "a", HALF)
    board.tell("other", "c", HALF)
    assert board.read() == {"m": [HALF, Progress("downloading")], "other": [HALF]}
    board.tell("m", "a", None)
    board.tell("never", "told", None)
    assert board.read() == {"m": [Progress("downloading")], "other": [HALF]}


def test_who_falls_silent_is_forgotten() -> None:
    """A replica that died while it loaded is not shown for ever."""
    clock = Clock()
    board = Board(clock)
    board.tell("m", "a", HALF)
    clock.now_s = FORGET_S / 2
    board.tell("m", "b", HALF)
    clock.now_s = FORGET_S + 1
    assert board.read() == {"m": [HALF]}
    clock.now_s *= 2
    assert board.read() == {}
