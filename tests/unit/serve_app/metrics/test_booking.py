"""What the router books of requests, over real HTTP, with the real router."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from deployments.config import EchoConfig
from deployments.exchange import Exchange, Item
from deployments.testing import EchoBackend
from serve_app.config import RouterSettings
from serve_app.directory import Application
from serve_app.guard import digest
from serve_app.metrics import catalog
from serve_app.metrics.books import Labels
from serve_app.metrics.export import Exporter
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving
from tests.plain_http import CHAT, chat, opened, post, request
from tests.polling import until

DEMO = ("demo", "demo", "echo")
OTHER = ("other", "other", "echo")
NOBODY = ("(none)",) * 3
COLD = Application("demo", "echo", "cold", 0.0)


@pytest.fixture
def cluster() -> LocalCluster:
    return LocalCluster({name: EchoBackend(name, EchoConfig()) for name in ("demo", "other")})


def sums(app: RouterApp, metric: catalog.Metric) -> dict[Labels, float]:
    return app.metrics.books.sums[metric]


def counts(app: RouterApp, metric: catalog.Metric) -> dict[Labels, int]:
    """How many observations each series of a histogram has."""
    return {k: sum(o.counts) for k, o in app.metrics.books.histograms[metric].items()}


def gauge(app: RouterApp, metric: catalog.Metric) -> dict[Labels, float]:
    return dict(app.metrics.books.gauges[metric]())


async def test_answers_and_tokens(app: RouterApp, url: str) -> None:
    """Each answer and its tokens are booked under the model that gave it, streamed or not."""
    app.settings = RouterSettings(aliases={"nick": "demo"})
    await post(url + CHAT, chat("one two", model="nick"))
    await post(url + CHAT, chat("one", model="other", stream=True))
    assert sums(app, catalog.REQUESTS) == {(*DEMO, "200"): 1, (*OTHER, "200"): 1}
    assert sums(app, catalog.PROMPT_TOKENS) == {DEMO: 2, OTHER: 1}
    assert sums(app, catalog.COMPLETION_TOKENS) == {DEMO: 2, OTHER: 1}
    assert counts(app, catalog.REQUEST_DURATION) == {DEMO: 1, OTHER: 1}
    assert sums(app, catalog.ERRORS) == {}
    assert gauge(app, catalog.IN_FLIGHT) == {DEMO: 0, OTHER: 0}


async def test_the_times_of_a_stream(app: RouterApp, url: str) -> None:
    """A stream has one time to its first token, one a gap, and their mean; the rest has none."""
    await post(url + CHAT, chat("one two", stream=False))
    assert counts(app, catalog.FIRST_TOKEN) == {}
    await post(url + CHAT, chat("[[sleep=0.05]] one two three four five", stream=True))
    assert counts(app, catalog.FIRST_TOKEN) == {DEMO: 1}
    assert counts(app, catalog.OUTPUT_TOKEN) == {DEMO: 1}
    gaps = app.metrics.books.histograms[catalog.INTER_TOKEN][DEMO]
    assert sum(gaps.counts) >= 4
    assert gaps.total >= 4 * 0.05
    mean = app.metrics.books.histograms[catalog.OUTPUT_TOKEN][DEMO].total
    assert mean == pytest.approx(gaps.total / 4)


async def test_errors_by_code(app: RouterApp, url: str) -> None:
    """Errors are booked by status and by the code that the client was told; a stream that broke
    off counts as what broke it."""
    await post(url + CHAT, chat("[[fail]]"))
    await post(url + CHAT, chat("one [[fail]]", stream=True))
    await post(url + CHAT, chat("[[crash]]"))
    await post(url + CHAT, b"{")
    assert sums(app, catalog.REQUESTS) == {
        (*DEMO, "503"): 2,
        (*DEMO, "500"): 1,
        (*NOBODY, "400"): 1,
    }
    codes = {labels[3:]: count for labels, count in sums(app, catalog.ERRORS).items()}
    assert codes == {
        ("model_unavailable", "server"): 2,
        ("internal_error", "server"): 1,
        ("invalid_value", "client"): 1,
    }
    assert counts(app, catalog.REQUEST_DURATION) == {}


async def test_names_of_clients_are_no_labels(cluster: LocalCluster) -> None:
    """Whatever a client calls a model, no series is made of it: neither of a model that does not
    exist, nor of an adapter that a starting model is not yet known not to have."""
    cluster.states["demo"] = COLD
    app = RouterApp(cluster)
    app.settings = RouterSettings(hold_s=0)
    async with serving(app) as url:
        for i in range(5):
            await post(url + CHAT, chat(model=f"made-up-{i}"))
            await post(url + CHAT, chat(model=f"demo:made-up-{i}"))
    assert sums(app, catalog.REQUESTS) == {(*NOBODY, "404"): 5, (*DEMO, "503"): 5}


async def test_only_requests_for_models_count(app: RouterApp, url: str) -> None:
    """Probes and lists are not counted, and a wrong key is: it is a request that failed."""
    app._keys = (digest("sk-right"),)
    for path in ("/health", "/ready", "/v1/models", "/-/models", "/nowhere"):
        await request("GET", url + path)
    assert sums(app, catalog.REQUESTS) == {}
    await post(url + CHAT, chat(), {"authorization": "Bearer sk-wrong"})
    assert sums(app, catalog.ERRORS) == {(*NOBODY, "invalid_api_key", "client"): 1}


async def test_a_client_that_leaves(app: RouterApp, url: str) -> None:
    """Who leaves in the middle is booked as 499, and as no error; until then the request is in
    flight."""
    async with opened(url + CHAT, chat("one [[wait]]", stream=True)) as response:
        await response.content.readany()
        assert gauge(app, catalog.IN_FLIGHT) == {DEMO: 1}
    await until(lambda: sums(app, catalog.REQUESTS) == {(*DEMO, "499"): 1})
    assert sums(app, catalog.ERRORS) == {}
    assert gauge(app, catalog.IN_FLIGHT) == {DEMO: 0}


async def test_fallbacks_by_reason(app: RouterApp, cluster: LocalCluster, url: str) -> None:
    """An answer by another model is booked under the one asked, with who gave it, and why."""
    app.settings = RouterSettings(fallbacks={"demo": ["other"]}, hold_s=0)
    cluster.backends["other"] = Steady("other", EchoConfig())
    await post(url + CHAT, chat("[[fail]]"))
    await post(url + CHAT, chat("[[overload]]"))
    cluster.states["demo"] = COLD
    await app.directory.refresh()
    await post(url + CHAT, chat())
    reasons = {labels[3:]: count for labels, count in sums(app, catalog.FALLBACKS).items()}
    assert reasons == {("other", "failed"): 1, ("other", "overloaded"): 1, ("other", "warming"): 1}
    assert {labels[:3] for labels in sums(app, catalog.FALLBACKS)} == {DEMO}
    assert sums(app, catalog.REQUESTS) == {(*OTHER, "200"): 3}
    assert sums(app, catalog.SHED) == {}


async def test_held_and_shed(app: RouterApp, cluster: LocalCluster, url: str) -> None:
    """Requests that wait for a start are seen to wait, and for how long; what cannot wait is shed;
    the start is booked when it is over."""
    cluster.states["demo"] = COLD
    await app.directory.refresh()
    app.settings = RouterSettings(max_held_requests=1)
    waiting = asyncio.create_task(post(url + CHAT, chat()))
    await until(lambda: gauge(app, catalog.HELD) == {("demo", "echo"): 1})
    assert (await post(url + CHAT, chat())).status == 503
    assert sums(app, catalog.SHED) == {(*DEMO, "model_warming"): 1}
    assert sums(app, catalog.ERRORS) == {(*DEMO, "model_warming", "capacity"): 1}
    # From its beginning, so that a rate sees the first of what comes so seldom.
    assert counts(app, catalog.HELD_DURATION) == {("demo", "echo"): 0}
    assert counts(app, catalog.COLD_START) == {("demo", "echo"): 0}
    cluster.awake.set()
    assert (await waiting).status == 200
    assert gauge(app, catalog.HELD) == {("demo", "echo"): 0}
    assert counts(app, catalog.HELD_DURATION) == {("demo", "echo"): 1}
    assert counts(app, catalog.COLD_START) == {("demo", "echo"): 1}


async def test_what_is_seen_of_the_cluster(app: RouterApp, cluster: LocalCluster) -> None:
    """Each application has one state, each state of a replica a number, and one that is removed
    is told no more."""
    cluster.states["demo"] = Application("demo", "echo", "failed", 0.0, {"UNHEALTHY": 2})
    await app.directory.refresh()
    other = ("other", "echo", "running")
    assert gauge(app, catalog.APPLICATION_STATE) == {("demo", "echo", "failed"): 1, other: 1}
    assert gauge(app, catalog.REPLICAS) == {("demo", "echo", "unhealthy"): 2}
    assert gauge(app, catalog.READY) == {(): 0}
    cluster.queued["other"] = 3
    assert gauge(app, catalog.QUEUED) == {("other", "echo"): 3}
    cluster.states["demo"] = COLD
    await app.directory.refresh()
    states = gauge(app, catalog.APPLICATION_STATE)
    assert states == {("demo", "echo", "failed"): 0, ("demo", "echo", "cold"): 1, other: 1}
    del cluster.backends["demo"]
    await app.directory.refresh()
    assert {labels[0] for labels in gauge(app, catalog.APPLICATION_STATE)} == {"other"}
    assert gauge(app, catalog.REPLICAS) == {}
    assert gauge(app, catalog.READY) == {(): 1}


async def test_without_ray(app: RouterApp, url: str) -> None:
    """Exporting where no Ray runs is harmless."""
    await post(url + CHAT, chat("one two", stream=True))
    await Exporter(app.metrics.books).export()


class Steady(EchoBackend):
    """An echo that follows no directions."""

    async def exchange(self, request: Exchange) -> AsyncGenerator[Item, None]:
        plain = replace(request, body=request.body.replace(b"[[", b"(("))
        async for item in super().exchange(plain):
            yield item
