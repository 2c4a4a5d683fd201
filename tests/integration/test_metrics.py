"""The metrics of a running system, as Prometheus reads them from Ray's agents."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from tests.integration.conftest import Roundhouse
from tests.plain_http import CHAT, chat
from tests.polling import until
from tests.unit.observability.shipped import asked_for

USAGE = {"include_usage": True}
# Told by nodes with GPUs only.
OF_GPUS = {"ray_node_gpus_utilization", "ray_node_gram_used"}


def scraped(roundhouse: Roundhouse) -> Iterator[Sample]:
    """Every sample of every address in the file where Ray tells Prometheus what to scrape."""
    for group in json.loads(roundhouse.discovery_file.read_text()):
        for address in group["targets"]:
            for family in text_string_to_metric_families(told_by(address)):
                yield from family.samples


def told_by(address: str) -> str:
    """Nothing, where nobody listens: two Rays of one machine name the same autoscaler's address,
    and it is gone with the first of them."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
            return str(answer.read().decode())
    except urllib.error.URLError:
        return ""


def value(samples: list[Sample], name: str, **labels: str) -> float:
    """The sum of the series that have these labels."""
    wanted = labels.items()
    return sum(s.value for s in samples if s.name == name and wanted <= s.labels.items())


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
        await until(complete, 60)
    except TimeoutError:
        pytest.fail(f"not told by any agent: {sorted(missing(samples))}")
    assert value(samples, "ray_roundhouse_completion_tokens_total", model="counted") == 5
    first = "ray_roundhouse_first_token_seconds"
    assert value(samples, first + "_count", model="counted") == 1
    assert value(samples, first + "_bucket", model="counted", le="+Inf") == 1
    assert 0 < value(samples, first + "_sum", model="counted") < 10


def missing(samples: list[Sample]) -> set[str]:
    """What is asked for and not among the samples, or not with the labels it is selected by."""
    there: dict[str, set[str]] = {}
    for sample in samples:
        there.setdefault(sample.name, set()).update(sample.labels)
    wanted = {name: labels for name, labels in asked_for().items() if name not in OF_GPUS}
    return {n for n, labels in wanted.items() if n not in there or not labels <= there[n]}


def test_what_only_gpus_tell() -> None:
    """The metrics that are not seen here are Ray's own."""
    assert {f"ray_{name}" for name in METRICS_GAUGES} >= OF_GPUS
