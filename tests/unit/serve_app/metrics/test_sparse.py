"""Gauges that leave out what is zero."""

from deployments.config import EchoConfig
from deployments.testing import EchoBackend
from serve_app.directory import Application
from serve_app.metrics.books import Labels
from serve_app.metrics.sparse import ZERO_S, Sparse
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster

NUM_COLD = 200


def test_zeros_are_told_for_a_while() -> None:
    """What has come down to zero is told as zero long enough to be seen, and then no more; what
    was never anything else is not told, nor what is gone."""
    now_s, values = [0.0], dict[Labels, float]({("a",): 2, ("b",): 0, ("c",): 1})
    gauge = Sparse(lambda: values, lambda: now_s[0])
    assert gauge() == {("a",): 2, ("c",): 1}
    values[("a",)] = 0
    del values[("c",)]
    now_s[0] = ZERO_S - 1
    assert gauge() == {("a",): 0}
    now_s[0] = ZERO_S
    assert gauge() == {}
    values[("a",)] = 1
    assert gauge() == {("a",): 1}


async def test_an_idle_model_is_one_series() -> None:
    """Of a model at zero replicas that nobody asks for, a router tells its state and no more: Ray
    keeps memory for each series, and there may be hundreds of such models."""
    cluster = LocalCluster({f"m{i}": EchoBackend("m", EchoConfig()) for i in range(NUM_COLD)})
    for name in cluster.backends:
        cluster.states[name] = Application(name, "echo", "cold", 0.0)
    app = RouterApp(cluster)
    for _ in range(2):
        await app.directory.refresh()
        books = app.metrics.books
        told = [labels for gauge in books.gauges.values() for labels in gauge()]
        assert len(told) == NUM_COLD + 1  # and READY
        assert not any(books.sums.values())
        assert not any(books.histograms.values())
