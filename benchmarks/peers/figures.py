"""A run as figures, the same for every contender: what succeeded, per second, and at what cost."""

from collections.abc import Sequence
from statistics import median

from benchmarks.load import Run
from benchmarks.summary import Figures, Record, percentiles, stream_times


def figures_of(run: Run, cpu_s: float | None) -> Figures:
    """What the requests that succeeded say, nothing if none did; `cpu_s` is what all processes of
    the stack used, None where there is none."""
    if not run.good:
        return {}
    num_tokens = sum(sample.num_tokens for sample in run.good)
    figures = {
        "requests_per_s": len(run.good) / run.elapsed_s,
        "tokens_per_s": num_tokens / run.elapsed_s,
    }
    if run.load.stream:
        figures["chunks_per_s"] = sum(1 + len(s.gaps_s) for s in run.good) / run.elapsed_s
        figures |= stream_times(run.good)
    figures |= percentiles("answer", [sample.answer_s for sample in run.good])
    if cpu_s is not None:
        figures["cpu_s_per_1000_requests"] = 1000 * cpu_s / len(run.samples)
        figures["cpu_s_per_100k_tokens"] = 100_000 * cpu_s / num_tokens
    return figures


def median_of(records: Sequence[Record], contender: str, load: str, figure: str) -> float | None:
    """Over a contender's runs of a load; None where there is none that says it."""
    found = [
        record.figures[figure]
        for record in records
        if (record.stack, record.load) == (contender, load) and figure in record.figures
    ]
    return median(found) if found else None


def pairs_of(
    records: Sequence[Record], first: str, second: str, load: str, figure: str
) -> list[tuple[float, float]]:
    """Both contenders' figures, repetition by repetition, where both have one."""
    found: dict[int, dict[str, float]] = {}
    for record in records:
        if record.load == load and figure in record.figures and record.stack in (first, second):
            found.setdefault(record.repetition, {})[record.stack] = record.figures[figure]
    return [(one[first], one[second]) for one in found.values() if len(one) == 2]


def ratios_of(
    records: Sequence[Record], ours: str, theirs: str, load: str, figure: str
) -> list[float]:
    """Ours against theirs, in each repetition; its runs lie seconds apart."""
    pairs = pairs_of(records, ours, theirs, load, figure)
    return [mine / other for mine, other in pairs if other > 0]
