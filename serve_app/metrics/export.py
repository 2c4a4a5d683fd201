"""Hands the books to Ray every few seconds; Ray's agent on the node shows them to Prometheus.

Histograms go as the three gauges that Prometheus reads of one. Ray's own would be told of every
single observation, and makes each the middle of its bucket, so that sums and means come out wrong
(https://github.com/ray-project/ray/issues/64852).
"""

import asyncio
import logging
from collections.abc import Iterator
from itertools import accumulate

from ray.util import metrics

from serve_app.metrics.books import Books, Labels, Observations
from serve_app.metrics.catalog import Metric

logger = logging.getLogger("roundhouse")

# Ray reports every 10 s by default, and forgets a gauge that it was not told for two reports.
PERIOD_S = 2.5
NUM_AT_ONCE = 50  # a series takes some 5 us: requests are not kept waiting longer than this

Tags = dict[str, str]


class Exporter:
    """The metrics of one process as Ray has them."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._counters = {m: metrics.Counter(m.name, m.meaning, m.labels) for m in books.sums}
        self._told: dict[Metric, dict[Labels, float]] = {m: {} for m in books.sums}
        self._gauges = {m: metrics.Gauge(m.name, m.meaning, m.labels) for m in books.gauges}
        self._histograms = {m: _Histogram(m) for m in books.histograms}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to export, in the running loop."""
        self._task = asyncio.create_task(self._run())

    async def export(self) -> None:
        """Tells Ray everything once, a little at a time."""
        for num_told, _ in enumerate(self._tell(), 1):
            if num_told % NUM_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                await self.export()
            except Exception as exc:  # noqa: BLE001 - nobody else would begin again
                logger.warning("the metrics were not told: %s", type(exc).__name__)

    def _tell(self) -> Iterator[None]:
        """One step a series. The books may change between two steps."""
        for metric, counter in self._counters.items():
            told = self._told[metric]
            for labels, value in list(self._books.sums[metric].items()):
                if (news := value - told.get(labels, 0)) > 0:
                    counter.inc(news, _tags(metric, labels))
                    told[labels] = value
                    yield
        for metric, gauge in self._gauges.items():
            for labels, value in self._books.gauges[metric]().items():
                gauge.set(value, _tags(metric, labels))
                yield
        for metric, histogram in self._histograms.items():
            for labels, observations in list(self._books.histograms[metric].items()):
                yield from histogram.tell(_tags(metric, labels), observations)


class _Histogram:
    """A histogram as three gauges, of all that was ever observed."""

    def __init__(self, metric: Metric) -> None:
        self._bounds = [*(str(float(bound)) for bound in metric.bounds), "+Inf"]
        labels, meaning = metric.labels, metric.meaning
        self._bucket = metrics.Gauge(f"{metric.name}_bucket", meaning, (*labels, "le"))
        self._sum = metrics.Gauge(f"{metric.name}_sum", meaning, labels)
        self._count = metrics.Gauge(f"{metric.name}_count", meaning, labels)

    def tell(self, tags: Tags, observations: Observations) -> Iterator[None]:
        """The numbers of one moment, whatever is observed meanwhile."""
        counts, total = list(accumulate(observations.counts)), observations.total
        for bound, count in zip(self._bounds, counts, strict=True):
            self._bucket.set(count, {**tags, "le": bound})
            yield
        self._sum.set(total, tags)
        self._count.set(counts[-1], tags)
        yield


def _tags(metric: Metric, labels: Labels) -> Tags:
    return dict(zip(metric.labels, labels, strict=True))
