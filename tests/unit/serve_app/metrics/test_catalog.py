"""The catalogue of metrics, and the page that is made of it."""

import re
from pathlib import Path

import pytest

from serve_app.metrics import catalog
from serve_app.metrics.catalog import ALL, Metric
from serve_app.metrics.document import table

PAGE = Path(__file__).parents[4] / "cluster" / "metrics.md"


def test_the_page_is_the_catalogue() -> None:
    """cluster/metrics.md lists every metric as the code has it; if not, the command that it names
    makes its table anew."""
    assert PAGE.read_text().endswith("\n\n" + table())


def test_every_metric_is_listed() -> None:
    """Nothing is exported that the page does not list."""
    assert {m for m in vars(catalog).values() if isinstance(m, Metric)} == set(ALL)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_names(metric: Metric) -> None:
    """A name says whose it is and in what unit, and, of a counter, that it is one."""
    units = "requests|errors|tokens|fallbacks|seconds|ratio|state|replicas|ready"
    suffix = "_total" if metric.kind == "counter" else ""
    assert re.fullmatch(rf"roundhouse_[a-z_]*({units}){suffix}", metric.name)
    assert (metric.kind == "histogram") == bool(metric.bounds) == (metric.unit == "seconds")
    assert list(metric.bounds) == sorted(set(metric.bounds))
