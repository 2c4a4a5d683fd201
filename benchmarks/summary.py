"""Runs as figures, and the figures of two stacks side by side.

A run's percentiles are values that were measured (nearest rank). A stack's figure is the median
over its runs. A ratio compares the two runs of one repetition, which lie seconds apart; what is
told of the ratios is their median, lowest and highest, so that drift of the machine cancels out
and noise stays visible.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.cpu_use import CpuUse
from benchmarks.load import Run, Sample
from benchmarks.stacks import BARE, OURS

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Record:
    """One run of one load on one stack."""

    repetition: int
    stack: str
    load: str
    num_requests: int
    failures: Mapping[str, int]
    figures: Figures
    cpu: CpuUse


def failures_of(records: Sequence[Record]) -> Counter[tuple[str, str, str]]:
    """Requests that failed, by stack, load and reason."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for record in records:
        for reason, count in record.failures.items():
            counts[record.stack, record.load, reason] += count
    return counts


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one load on both stacks. No ratio where bare vLLM's figure is zero."""

    load: str
    figure: str
    bare: float
    ours: float
    difference: float
    ratio: float | None
    lowest: float | None
    highest: float | None


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that is not exceeded by `percent` % of the values."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def figures_of(run: Run, loaded_cpu_s: float) -> Figures:
    """What the requests that succeeded say; nothing if none did."""
    if not run.good:
        return {}
    figures = {"requests_per_s": len(run.good) / run.elapsed_s}
    if run.load.stream:
        figures["tokens_per_s"] = sum(s.num_tokens for s in run.good) / run.elapsed_s
        figures |= stream_times(run.good)
    else:
        figures |= percentiles("answer", [s.answer_s for s in run.good])
    figures["cpu_s_per_1000_requests"] = 1000 * loaded_cpu_s / len(run.samples)
    return figures


def stream_times(samples: Sequence[Sample]) -> Figures:
    """Of the first tokens, and of the gaps between tokens."""
    first_s = [s.first_token_s for s in samples if s.first_token_s is not None]
    gaps_s = [gap for sample in samples for gap in sample.gaps_s]
    return percentiles("first_token", first_s) | (percentiles("gap", gaps_s) if gaps_s else {})


def percentiles(name: str, values_s: Sequence[float]) -> Figures:
    """In milliseconds, under names of their own."""
    return {f"{name}_p{p}_ms": 1000 * percentile(values_s, p) for p in (50, 99)}


def rows_of(records: Sequence[Record]) -> list[Row]:
    """Every figure that both stacks have, in the order in which it was measured."""
    names = {(r.load, figure): None for r in records for figure in r.figures}
    rows = (_row(load, figure, records) for load, figure in names)
    return [row for row in rows if row is not None]


def _row(load: str, figure: str, records: Sequence[Record]) -> Row | None:
    by_repetition: dict[int, dict[str, float]] = {}
    for record in records:
        if record.load == load and figure in record.figures:
            by_repetition.setdefault(record.repetition, {})[record.stack] = record.figures[figure]
    pairs = [(p[BARE], p[OURS]) for p in by_repetition.values() if len(p) == 2]
    if not pairs:
        return None
    ratios = [ours / bare for bare, ours in pairs if bare > 0]
    return Row(
        load=load,
        figure=figure,
        bare=median(bare for bare, _ in pairs),
        ours=median(ours for _, ours in pairs),
        difference=median(ours - bare for bare, ours in pairs),
        ratio=median(ratios) if ratios else None,
        lowest=min(ratios, default=None),
        highest=max(ratios, default=None),
    )
