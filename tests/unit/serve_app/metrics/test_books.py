"""Numbers in a process: bounded, and right."""

from serve_app.metrics import catalog
from serve_app.metrics.books import MAX_SERIES, Books


def test_series_are_bounded() -> None:
    """However many label sets come, a metric has no more series than Ray keeps, buckets counted,
    one for the rest among them; none of the numbers is lost, and series that were there keep
    theirs."""
    books = Books(catalog.ROUTER)
    for i in range(MAX_SERIES):
        books.add(catalog.PROMPT_TOKENS, (str(i), "m", "b"), 2)
        books.observations(catalog.FIRST_TOKEN, (str(i), "m", "b")).add(1)
    for _ in range(2):
        books.add(catalog.PROMPT_TOKENS, ("new", "m", "b"), 2)
    books.add(catalog.PROMPT_TOKENS, ("0", "m", "b"), 1)
    sums, histogram = books.sums[catalog.PROMPT_TOKENS], books.histograms[catalog.FIRST_TOKEN]
    num_buckets = len(catalog.FIRST_TOKEN.bounds) + 1
    assert len(sums) == MAX_SERIES
    assert len(histogram) == MAX_SERIES // num_buckets
    assert sums["(other)", "(other)", "(other)"] == 2 + 4
    counts = [sum(observations.counts) for observations in histogram.values()]
    assert counts == [1] * (len(counts) - 1) + [MAX_SERIES - len(counts) + 1]
    assert sums["0", "m", "b"] == 3


def test_buckets() -> None:
    """A value that is a bound is in its bucket, as Prometheus has it; the sum is exact."""
    series = Books(catalog.ROUTER).observations(catalog.FIRST_TOKEN, ("a", "m", "b"))
    for value in (0.01, 0.011, 1000):
        series.add(value)
    assert series.counts[:2] == [1, 1]
    assert series.counts[-1] == 1
    assert series.total == 1000.021
