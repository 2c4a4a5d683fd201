"""Models that scale, on a real cluster: to zero and back, and up and down under waves of load."""

import asyncio
import copy
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from tests.integration.conftest import Roundhouse, echo_application
from tests.integration.scraping import scraped, value
from tests.plain_http import CHAT, chat
from tests.polling import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

HELD = "ray_roundhouse_held_requests"
LIMIT_S = 180  # for what comes in seconds where nothing else runs


@contextmanager
def deployed(roundhouse: Roundhouse, *applications: dict[str, Any]) -> Iterator[None]:
    """These beside the others, and the others as they were in the end."""
    instance, before = roundhouse.instance, roundhouse.instance.config["applications"]
    names = {application["name"] for application in applications}
    others = [application for application in before if application["name"] not in names]
    try:
        instance.config["applications"] = [*others, *applications]
        instance.deploy(roundhouse.dashboard_url)
        yield
    finally:
        instance.config["applications"] = before
        instance.deploy(roundhouse.dashboard_url)
        instance.wait(lambda: instance.get("/ready")[0] == 200)


async def said(session: aiohttp.ClientSession, url: str, text: str, model: str) -> tuple[int, str]:
    """The status and the text of an answer."""
    async with session.post(
        url + CHAT, json=chat(text, model, max_tokens=64, temperature=0)
    ) as response:
        body = await response.json()
        good = response.status == 200
        return response.status, body["choices"][0]["message"]["content"] if good else str(body)


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


async def until_state(roundhouse: Roundhouse, name: str, *states: str) -> None:
    async def reached() -> bool:
        return await asyncio.to_thread(roundhouse.instance.state, name) in states

    await until(reached, LIMIT_S)


async def num_running(roundhouse: Roundhouse, name: str) -> int | None:
    """None where the router does not say."""
    row = await asyncio.to_thread(roundhouse.instance.application, name)
    return int(row["replicas"].get("RUNNING", 0)) if row else None


async def start_is_told(roundhouse: Roundhouse, name: str, num_held: int) -> bool:
    """Whether metrics tell of one start, for which so many waited, and that nobody does now."""
    samples = list(await asyncio.to_thread(lambda: [*scraped(roundhouse)]))
    held = {s.labels["application"]: s.value for s in samples if s.name == HELD}
    return (
        held.get(name) == 0
        and value(samples, "ray_roundhouse_held_seconds_count", application=name) == num_held
        and value(samples, "ray_roundhouse_cold_start_seconds_count", application=name) == 1
        and value(samples, "ray_roundhouse_cold_start_seconds_sum", application=name) > 8
    )


async def test_a_burst_at_zero(roundhouse: Roundhouse) -> None:
    """200 requests to a model that has no replica: one is started, none is lost, each gets its own
    answer; idle again, the replica goes. /ready stays 200 all the while. Prometheus is told who
    waited, for how long, and of the start."""
    instance = roundhouse.instance
    scaling = {"min_replicas": 0, "max_replicas": 3, "downscale_to_zero_delay_s": 3}
    # Long enough for all of the requests to come before it runs.
    sleeper = echo_application("sleeper", start_delay_s=8, autoscaling=scaling)
    sleeper["args"]["autoscaling"]["target_ongoing_requests"] = 256
    with deployed(roundhouse, sleeper):
        await until_state(roundhouse, "sleeper", "cold")
        async with client() as session:
            texts = [f"word-{i} [[pid]]" for i in range(200)]
            tasks = [
                asyncio.create_task(said(session, instance.url, text, "sleeper")) for text in texts
            ]
            await until_state(roundhouse, "sleeper", "warming", "running")
            assert (await asyncio.to_thread(instance.get, "/ready"))[0] == 200
            answers = await asyncio.gather(*tasks)
        assert [status for status, _ in answers] == [200] * 200
        words = [text.split() for _, text in answers]
        assert [word for word, _ in words] == [f"word-{i}" for i in range(200)]
        assert len({pid for _, pid in words}) == 1
        await until_state(roundhouse, "sleeper", "cold")
        await until(partial(start_is_told, roundhouse, "sleeper", 200), LIMIT_S)


@pytest.fixture
def sign() -> Iterator[Path]:
    """The file that an echo's `[[file=NAME]]` waits for, not there yet."""
    path = Path(tempfile.gettempdir(), f"roundhouse.{uuid4().hex}")
    yield path
    path.unlink(missing_ok=True)


async def test_a_burst_at_zero_starts_as_many_as_it_needs(
    roundhouse: Roundhouse, sign: Path
) -> None:
    """200 long requests to a cold model whose replicas should have 80 each: three start, and no
    more; none of the requests is lost."""
    instance, looks = roundhouse.instance, list[dict[str, int]]()
    scaling = {"min_replicas": 0, "max_replicas": 5, "target_ongoing_requests": 80}
    crowd = echo_application("crowd", autoscaling=scaling)

    async def run(count: int, num_looks: int = 0) -> bool:
        row = await asyncio.to_thread(instance.application, "crowd")
        looks.append(row["replicas"] if row else {})
        return looks[-1] == {"RUNNING": count} and len(looks) >= num_looks

    with deployed(roundhouse, crowd):
        await until_state(roundhouse, "crowd", "cold")
        async with client() as session:
            texts = [f"[[file={sign.name}]]word-{i}" for i in range(200)]
            tasks = [
                asyncio.create_task(said(session, instance.url, text, "crowd")) for text in texts
            ]
            await until(partial(run, 3), LIMIT_S)
            # So many looks more: several of the reports that the autoscaler gets.
            await until(partial(run, 3, len(looks) + 300), LIMIT_S)
            await asyncio.to_thread(sign.touch)
            answers = await asyncio.gather(*tasks)
        assert answers == [(200, f"word-{i}") for i in range(200)]
        assert max(sum(replicas.values()) for replicas in looks) == 3


async def test_waves_do_not_flap(roundhouse: Roundhouse) -> None:
    """Load that comes and goes adds replicas once; they stay through the lull."""
    url = roundhouse.instance.url
    scaling = {"max_replicas": 2, "target_ongoing_requests": 4, "downscale_delay_s": 3600}
    wave = echo_application("wave", autoscaling=scaling)
    seen: list[int] = []

    async def watched(count: int) -> bool:
        number = await num_running(roundhouse, "wave")
        seen.extend([] if number is None else [number])
        return number is not None and number >= count

    async def enough(looks: int) -> bool:
        await watched(2)
        return len(seen) >= looks

    with deployed(roundhouse, wave):
        await until_state(roundhouse, "wave", "running")
        for _ in range(2):
            async with client() as session:
                load = [
                    asyncio.create_task(said(session, url, "[[wait]]", "wave")) for _ in range(16)
                ]
                await until(lambda: watched(2), LIMIT_S)
                for task in load:
                    task.cancel()
                await asyncio.wait(load)
            # A lull of so many looks: several of the reports that the autoscaler gets.
            await until(partial(enough, len(seen) + 400), LIMIT_S)
        assert seen == sorted(seen)
        assert set(seen) == {1, 2}


@pytest.mark.parametrize("name", ["demo-hf", pytest.param("demo", marks=pytest.mark.slow)])
async def test_a_real_model_comes_back(roundhouse: Roundhouse, name: str) -> None:
    """The demo, on transformers and on vLLM, scaled to zero, is started by requests, once, and
    answers them."""
    instance = roundhouse.instance
    found = next(a for a in instance.config["applications"] if a["name"] == name)
    demo = copy.deepcopy(found) | {"name": "demo-cold"}
    demo["args"] |= {"num_cpus": 0.1, "autoscaling": {"min_replicas": 0}}
    with deployed(roundhouse, demo):
        await until_state(roundhouse, "demo-cold", "cold")
        async with client() as session:
            answers = await asyncio.gather(
                *(said(session, instance.url, "What is 7 + 5?", "demo-cold") for _ in range(20))
            )
        assert {status for status, _ in answers} == {200}
        assert len({text for _, text in answers}) == 1
        assert await num_running(roundhouse, "demo-cold") == 1
