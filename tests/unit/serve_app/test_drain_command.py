"""How `roundhouse drain` waits, without a cluster; tests/nodes has one."""

import pytest

from serve_app.commands import drain


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic(self) -> float:
        return self._now_s

    def sleep(self, seconds: float) -> None:
        self._now_s += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(drain, "time", clock)
    return clock


class Full:
    """A node whose only replica goes when Ray is given a deadline, as Serve has it: one that is
    nearer than the replica's own time to finish ends the wait for another."""

    def __init__(self, stubborn: bool = False) -> None:
        self.deadlines: list[float | None] = []
        self._stubborn = stubborn

    def drain(self, node_id: str, limit_s: float | None = None) -> str | None:
        self.deadlines.append(limit_s)
        return None

    def replicas(self, node_id: str) -> list[str]:
        return [] if self.deadlines and not self._stubborn else ["demo:echo"]


def wait(node: Full, limit_s: float) -> list[str]:
    return drain._wait(node, "node", 1, deadline=limit_s)  # type: ignore[arg-type]


def test_what_nothing_replaces_goes_all_the_same() -> None:
    """Where no replica has come elsewhere in half of the time, Ray is told how much is left, once,
    and what is on the node ends in that."""
    node = Full()
    assert wait(node, 4) == []
    (left_s,) = node.deadlines
    assert left_s == pytest.approx(2, abs=drain.POLL_S)


def test_a_limit_is_one() -> None:
    """What stays all the same is told when the time is over; Ray is not asked again and again."""
    node = Full(stubborn=True)
    assert wait(node, 2) == ["demo:echo"]
    assert len(node.deadlines) == 1
