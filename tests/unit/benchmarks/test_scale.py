"""What the scale benchmark counts without a cluster."""

from benchmarks.scale import memory
from benchmarks.scale.arrivals import Sample
from benchmarks.scale.overload import phase_of

MAX_BYTES_PER_MODEL = 20_000


def test_what_a_router_keeps_for_a_model_is_small() -> None:
    """Of each model that a router has served it keeps some kilobytes: 200 of them are a fraction of
    a percent of its memory. Counted by the allocator, not by the clock."""
    one, many = memory.measure((1, 201))
    assert 0 < (many.kept_bytes - one.kept_bytes) / 200 < MAX_BYTES_PER_MODEL


def test_a_phase_counts_everybody_once() -> None:
    """Answered whole, refused, or failed: a stream that breaks off, or no answer, is a failure."""
    samples = [
        Sample(200, 0.1, 0.5, whole=True),
        Sample(200, 0.2, 0.5, whole=False),
        Sample(429, None, 0.01, retry_after=True),
        Sample(503, None, 0.02),
        Sample(500, None, 0.02),
        Sample(0),
    ]
    phase = phase_of(10.0, samples, 1.0)
    assert (phase.num_accepted, phase.num_refused, phase.num_others) == (1, 2, 3)
    assert phase.num_without_retry_after == 1
    assert phase.refused_p99_ms == 20
