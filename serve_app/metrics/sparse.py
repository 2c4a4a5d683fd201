"""Gauges without their zeros: of most of 200 models a router knows that nothing is going on.

Ray keeps 10 kB and more of the process's memory for each series that it is told
(benchmarks/RESULTS.md). `APPLICATION_STATE`, which is always 1 in one state, says who is there.
"""

import time
from collections.abc import Callable, Mapping

from serve_app.metrics.books import Labels

# So long is told that there is nothing any more: several reports of Ray, and looks of Prometheus.
ZERO_S = 60.0


class Sparse:
    """A gauge's values that are not zero, or have just been; what is left out counts as zero."""

    def __init__(
        self,
        gauge: Callable[[], Mapping[Labels, float]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gauge = gauge
        self._clock = clock
        self._until_s: dict[Labels, float] = {}

    def __call__(self) -> Mapping[Labels, float]:
        now_s, values = self._clock(), self._gauge()
        self._until_s = {k: at for k, at in self._until_s.items() if at > now_s and k in values}
        self._until_s |= {labels: now_s + ZERO_S for labels, value in values.items() if value}
        return {labels: values[labels] for labels in self._until_s}
