"""The metrics of a running system, as Prometheus reads them from Ray's agents."""

import asyncio
from typing import Any

import aiohttp
import pytest
from prometheus_client.samples import Sample
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from serve_app.metrics import catalog
from tests.integration.conftest import Roundhouse
from tests.integration.scraping import scraped, value
from tests.plain_http import CHAT, chat
from tests.polling import until
from tests.unit.observability.shipped import asked_for

USAGE = {"include_usage": True}
# Told by nodes with GPUs only.
OF_GPUS = {"ray_node_gpus_utilization", "ray_node_gram_used"}
# Told while requests wait: tests/integration/test_scaling.py and tests/unit/serve_app/metrics.
OF_WAITING = {
    name
    for metric in (catalog.QUEUED, catalog.HELD, catalog.HELD_DURATION, catalog.COLD_START)
    for name in metric.exposed
}


async def sent(url: str, *bodies: dict[str, Any]) -> list[int]:
    """The statuses of these requests, one after the other."""
    async with aiohttp.ClientSession() as session:
        return [await status(session, url, body) for body in bodies]


async def status(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> int:
    async with session.post(url + CHAT, json=body) as response:
        await response.read()
        return response.status


@pytest.mark.asyncio(loop_scope="session")
async def test_what_is_drawn_is_there(roundhouse: Roundhouse) -> None:
    """Every metric that the dashboard draws or an alert reads is told by a running system, with
    the labels it is selected by; and the numbers are those of the requests that were sent."""
    samples: list[Sample] = []
    statuses = await sent(
        roundhouse.instance.url,
        chat("one two three", model="counted", stream=True, stream_options=USAGE),
        chat("one two", model="counted"),
        chat("[[overload]]", model="echo-too"),
        chat("[[fail]]", model="echo"),  # its fallback answers
        chat("What is 7 + 5?", model="demo", stream=True),
    )
    assert statuses == [200, 200, 429, 200, 200]

    async def complete() -> bool:
        await asyncio.sleep(1)  # an agent takes as long to tell what it is told every few seconds
        samples[:] = await asyncio.to_thread(lambda: list(scraped(roundhouse)))
        counted = value(samples, "ray_roundhouse_requests_total", model="counted", status="200")
        return counted == 2 and not missing(samples)

    try:
        await until(complete, 180)
    except TimeoutError:
        pytest.fail(f"not told by any agent: {sorted(missing(samples))}")
    assert value(samples, "ray_roundhouse_completion_tokens_total", model="counted") == 5
    first = "ray_roundhouse_first_token_seconds"
    assert value(samples, first + "_count", model="counted") == 1
    assert value(samples, first + "_bucket", model="counted", le="+Inf") == 1
    assert value(samples, first + "_sum", model="counted") > 0


def missing(samples: list[Sample]) -> set[str]:
    """What is asked for and not among the samples, or not with the labels it is selected by."""
    there: dict[str, set[str]] = {}
    for sample in samples:
        there.setdefault(sample.name, set()).update(sample.labels)
    left_out = OF_GPUS | OF_WAITING
    wanted = {name: labels for name, labels in asked_for().items() if name not in left_out}
    return {n for n, labels in wanted.items() if n not in there or not labels <= there[n]}


def test_what_only_gpus_tell() -> None:
    """The metrics that are not seen here are Ray's own."""
    assert {f"ray_{name}" for name in METRICS_GAUGES} >= OF_GPUS
