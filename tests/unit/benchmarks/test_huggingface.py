"""What the Hugging Face benchmark makes of its passes; no server is started."""

from benchmarks.huggingface.measure import Found, Pass, spread
from benchmarks.huggingface.report import bars, report_of
from benchmarks.huggingface.servers import CONTINUOUS, OURS, PLAIN
from benchmarks.machine import this_machine

ENGINES = ("ours", "continuous batching", "static generate, all 32", "static generate, 4 x 8")
STALL = {"gap_before_p50_ms": 3.0, "gap_before_ms": 4.0, "gap_after_ms": 9.0, "chunk_ms": 6.0}


def found(seconds_of_plain: list[float]) -> Found:
    """One repetition in each start: ours takes a second, `transformers serve` these."""
    passes = [Pass(0, name, 100, 1.0, 1.0, 0.0, {}) for name in ENGINES]
    for start, plain_s in enumerate(seconds_of_plain):
        for name, wall_s in ((OURS, 1.0), (PLAIN, plain_s), (CONTINUOUS, 2.0)):
            passes.append(Pass(start, name, 100, wall_s, wall_s, 0.0, {}, start))
    return Found(this_machine(), 1.0, passes, [STALL])


def test_repetitions_are_spread_over_the_starts() -> None:
    """Each repetition is of one start, in order, and no start is without one."""
    assert spread(8, 4) == [range(2), range(2, 4), range(4, 6), range(6, 8)]
    assert spread(5, 2) == [range(2), range(2, 5)]
    assert spread(2, 4) == [range(1), range(1, 2)]
    assert spread(5, 0) == []


def test_bars_of_servers_are_medians_over_all_starts() -> None:
    """A server that was slow after one start decides no bar; the report says how many starts there
    were, and how far the pairs are from each other."""
    run = found([2.0, 2.5, 9.0])
    measured = {bar.name: bar.measured for bar in bars(run)}
    assert measured[f"8 clients, of {PLAIN}'s"] == 2.5
    text = report_of(run).as_text()
    assert "servers 3, over 3 starts" in text
    assert "2.50 (2.00..9.00)" in text
