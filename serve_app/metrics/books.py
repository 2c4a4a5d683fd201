"""The numbers of one process, in plain Python: to book one costs a lookup and an addition.

Not for several threads. How they leave the process is for `serve_app.metrics.export`.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from serve_app.metrics.catalog import Metric

# Of one name in one process: what comes after them Ray's OpenTelemetry merges into one without
# labels, or worse, keeps the last of it. Here it is booked as one beforehand, and counts.
MAX_SERIES = 2000
OTHER = "(other)"

Labels = tuple[str, ...]


@dataclass(slots=True)
class Observations:
    """One series of a histogram: how many fell into each bucket, the last of which has no bound,
    and their sum."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Books:
    """The series of some metrics, by metric and label values in the metric's order."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = tuple(metrics)
        self.sums: dict[Metric, dict[Labels, float]] = {}
        self.histograms: dict[Metric, dict[Labels, Observations]] = {}
        self.gauges: dict[Metric, Callable[[], Mapping[Labels, float]]] = {}
        for metric in self.metrics:
            if metric.kind == "counter":
                self.sums[metric] = {}
            elif metric.kind == "histogram":
                self.histograms[metric] = {}

    def add(self, metric: Metric, labels: Labels, amount: float = 1) -> None:
        """Counts on."""
        sums = self.sums[metric]
        if labels not in sums:
            labels = _bounded(labels, len(sums), metric)
        sums[labels] = sums.get(labels, 0) + amount

    def observations(self, metric: Metric, labels: Labels) -> Observations:
        """The series to add to; the same object each time."""
        series = self.histograms[metric]
        found = series.get(labels)
        if found is None:
            labels = _bounded(labels, len(series), metric)
            found = series.get(labels)
        if found is None:
            found = series[labels] = Observations(metric.bounds)
        return found

    def read(self, metric: Metric, gauge: Callable[[], Mapping[Labels, float]]) -> None:
        """Has a gauge's values read whenever they are exported; what is not there is no more."""
        self.gauges[metric] = gauge


def max_label_sets(metric: Metric) -> int:
    """Of a metric, the one for all others included. Each bucket of a histogram is a series."""
    return MAX_SERIES // (len(metric.bounds) + 1)


def _bounded(labels: Labels, num_label_sets: int, metric: Metric) -> Labels:
    there_is_room = num_label_sets < max_label_sets(metric) - 1
    return labels if there_is_room else (OTHER,) * len(labels)
