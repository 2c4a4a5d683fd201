import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import openai
import pytest

from deployments.config import EchoConfig
from deployments.errors import BackendUnavailable, NotTaken, ReplicaDied
from deployments.exchange import Exchange
from deployments.progress import Progress, Shard
from deployments.testing import EchoBackend
from serve_app.config import RouterSettings
from serve_app.directory import Application
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving
from tests.loop_clock import LoopClock
from tests.plain_http import CHAT, Answered, chat, events_of, opened, post, request
from tests.polling import until

COLD = Application("demo", "echo", "cold", 0.0)
STARTING = {"STARTING": 1}
FALLBACK = {"fallbacks": {"demo": ["other"]}}
COMMENT = b": warming\n\n"


async def look(app: RouterApp, cluster: LocalCluster, state: Application) -> None:
    """The cluster says this of an application, and the router has seen it."""
    cluster.states[state.name] = state
    await app.directory.refresh()


async def row(url: str) -> dict[str, Any]:
    """What operators see of `demo`."""
    rows: list[dict[str, Any]] = (await request("GET", url + "/-/models")).json["applications"]
    return rows[0]


def holds(url: str, number: int) -> Callable[[], Any]:
    """Whether so many requests wait for `demo`."""

    async def held() -> bool:
        return bool((await row(url))["held"] == number)

    return held


def asked(url: str, number: int, **more: Any) -> list[asyncio.Task[Answered]]:
    """Requests to `demo` that are under way, each with a word of its own."""
    texts = [f"word-{i}" for i in range(number)]
    return [asyncio.create_task(post(url + CHAT, chat(text, **more))) for text in texts]


def started(took_s: float) -> tuple[Application, Application]:
    """A start that took so long, as the directory sees its beginning and its end."""
    return replace(COLD, state="warming", since_s=1000.0), replace(
        COLD, state="running", since_s=1000.0 + took_s
    )


async def learn(app: RouterApp, cluster: LocalCluster, *durations_s: float) -> None:
    """The router has seen starts that took so long; now the model is cold."""
    for took_s in durations_s:
        for state in started(took_s):
            await look(app, cluster, state)
    await look(app, cluster, COLD)


async def refused(url: str, text: str = "hello there") -> Answered:
    """The answer to a request that cannot be held."""
    answer = await post(url + CHAT, chat(text))
    assert (answer.status, answer.error["code"]) == (503, "model_warming")
    return answer


async def held_are_answered(cluster: LocalCluster, tasks: list[asyncio.Task[Answered]]) -> None:
    """The model starts, and who waited for it gets an answer."""
    cluster.awake.set()
    assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}


async def test_a_burst_at_zero_is_one_start(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """200 requests to a cold model start it once, wait, and are all answered, each its own."""
    await look(app, cluster, COLD)
    tasks = asked(url, 200)
    await until(holds(url, 200))
    assert cluster.wakes == ["demo"]
    assert cluster.exchanges == []
    cluster.awake.set()
    answers = await asyncio.gather(*tasks)
    texts = [answer.json["choices"][0]["message"]["content"] for answer in answers]
    assert texts == [f"word-{i}" for i in range(200)]
    assert cluster.wakes == ["demo"]
    assert (await row(url))["held"] == 0


async def test_no_more_are_held_than_may_be(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """Beyond `max_held_requests` a request is told at once to come back; the held ones stay."""
    app.settings = RouterSettings(max_held_requests=2)
    await look(app, cluster, COLD)
    tasks = asked(url, 2)
    await until(holds(url, 2))
    answer = await refused(url)
    assert answer.headers["retry-after"] == "5"  # nothing is known of its starts
    await held_are_answered(cluster, tasks)


async def test_no_more_bytes_are_held_than_may_be(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """`max_held_bytes` bounds the bodies that wait, whatever their number."""
    app.settings = RouterSettings(max_held_bytes=1000)
    await look(app, cluster, COLD)
    tasks = asked(url, 1)
    await until(holds(url, 1))
    await refused(url, "x" * 950)
    tasks += asked(url, 1)
    await until(holds(url, 2))
    await held_are_answered(cluster, tasks)


@pytest.mark.parametrize("stream", [False, True])
async def test_who_waited_long_enough_is_told_when_to_come_back(
    url: str, app: RouterApp, cluster: LocalCluster, stream: bool
) -> None:
    """After `hold_s` a request is a 503 `model_warming`, and leaves its place."""
    app.settings = RouterSettings(hold_s=0.05)
    await look(app, cluster, COLD)
    answer = await post(url + CHAT, chat(stream=stream))
    assert (answer.status, answer.error["code"]) == (503, "model_warming")
    assert (await row(url))["held"] == 0
    assert cluster.exchanges == []


async def test_a_start_that_is_known_to_be_long_is_not_waited_for(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """If the last starts took longer than `hold_s`, the request is told at once, with the time
    that their median predicts; yet the model is started."""
    app.settings = RouterSettings(hold_s=50)
    await learn(app, cluster, 10.0, 90.0, 100.0)
    answer = await post(url + CHAT, chat())
    assert (answer.status, answer.error["code"]) == (503, "model_warming")
    assert answer.headers["retry-after"] == "90"
    assert cluster.wakes == ["demo"]
    assert (await row(url))["expected_s"] == 90.0


async def test_a_start_that_is_known_to_be_short_is_waited_for(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """If the last starts were shorter than `hold_s`, the request is held, fallback or not."""
    app.settings = RouterSettings(hold_s=50, **FALLBACK)
    await learn(app, cluster, 10.0)
    tasks = asked(url, 1)
    await until(holds(url, 1))
    cluster.awake.set()
    answer = await tasks[0]
    assert (answer.status, answer.headers["x-served-by"]) == (200, "demo")


@pytest.mark.parametrize(
    "settings",
    [{"hold_s": 50}, {"hold_s": 500, "max_held_requests": 0}, {"hold_s": 0}],
)
async def test_what_cannot_be_held_spills(
    url: str, app: RouterApp, cluster: LocalCluster, settings: dict[str, Any]
) -> None:
    """A request that cannot wait is answered by a fallback that runs; the model is started."""
    app.settings = RouterSettings(**settings, **FALLBACK)
    await learn(app, cluster, 90.0)
    answer = await post(url + CHAT, chat())
    assert (answer.status, answer.headers["x-served-by"]) == (200, "other")
    assert cluster.wakes == ["demo"]


async def test_nothing_else_is_started_for_what_spills(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """A fallback that is cold itself is not started because the model is starting."""
    app.settings = RouterSettings(hold_s=0, **FALLBACK)
    await look(app, cluster, replace(COLD, name="other"))
    await look(app, cluster, COLD)
    answer = await post(url + CHAT, chat())
    assert (answer.status, answer.error["code"]) == (503, "model_warming")
    assert cluster.wakes == ["demo"]


async def test_a_failed_model_s_fallback_is_started(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """A model that has failed is answered by a cold fallback, held until that runs."""
    app.settings = RouterSettings(**FALLBACK)
    await look(app, cluster, replace(COLD, name="other"))
    await look(app, cluster, replace(COLD, state="failed"))
    cluster.awake.set()
    answer = await post(url + CHAT, chat())
    assert (answer.status, answer.headers["x-served-by"]) == (200, "other")
    assert cluster.wakes == ["other"]


async def test_a_loading_model_is_predicted_from_its_progress(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """Where no start has been seen, how much of the weights has been read tells how long it takes:
    a quarter in 30 s leaves 90 s."""
    app.settings = RouterSettings(hold_s=50)
    cluster.progress["demo"] = [Progress("loading weights", (Shard("a", 25, 100),))]
    since_s = time.time() - 30
    await look(app, cluster, replace(COLD, state="warming", since_s=since_s))
    answer = await post(url + CHAT, chat())
    assert (answer.status, answer.error["code"]) == (503, "model_warming")
    most_s = 3 * (time.time() - since_s)
    assert 90 <= int(answer.headers["retry-after"]) <= most_s + 1
    shown = await row(url)
    assert shown["loading"][0]["percent"] == 25.0
    assert 90 <= shown["expected_s"] <= 3 * (time.time() - since_s) + 1


async def test_streams_are_kept_alive(url: str, app: RouterApp, cluster: LocalCluster) -> None:
    """A streaming client that waits gets comments, and then the answer; OpenAI's own client
    takes it as any stream."""
    app.settings = RouterSettings(keepalive_s=0.01)
    await look(app, cluster, COLD)
    async with opened(url + CHAT, chat("one two", stream=True)) as response:
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        for _ in range(3):
            assert await response.content.readexactly(len(COMMENT)) == COMMENT
        cluster.awake.set()
        body = (await response.read()).replace(COMMENT, b"")
    *events, done = events_of(body)
    assert done == "[DONE]"
    assert "".join(e["choices"][0]["delta"].get("content") or "" for e in events) == "one two"

    cluster.awake.clear()
    await look(app, cluster, COLD)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "three"}]
        stream = await client.chat.completions.create(
            model="demo", messages=messages, stream=True
        )  # returns with the first comment
        cluster.awake.set()
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "three"


@pytest.mark.parametrize(
    ("text", "code"),
    [("[[fail]]", "model_unavailable"), ("[[crash]]", "internal_error")],
)
async def test_an_error_after_comments_is_an_event(
    url: str, app: RouterApp, cluster: LocalCluster, text: str, code: str
) -> None:
    """Once a comment has been sent, an error is the stream's last event, without [DONE]."""
    app.settings = RouterSettings(keepalive_s=0.01)
    await look(app, cluster, COLD)
    async with opened(url + CHAT, chat(text, stream=True)) as response:
        assert await response.content.readexactly(len(COMMENT)) == COMMENT
        cluster.awake.set()
        body = (await response.read()).replace(COMMENT, b"")
    (event,) = events_of(body)
    assert event["error"]["code"] == code


async def test_a_start_that_is_too_long_after_comments_is_an_event(
    url: str, app: RouterApp, cluster: LocalCluster, clock: LoopClock
) -> None:
    """So it is when the model does not run in time."""
    app.settings = RouterSettings(keepalive_s=0.01, hold_s=100)
    await look(app, cluster, COLD)
    async with opened(url + CHAT, chat(stream=True)) as response:
        assert await response.content.readexactly(len(COMMENT)) == COMMENT
        clock.skip(101)
        body = (await response.read()).replace(COMMENT, b"")
    (event,) = events_of(body)
    assert event["error"]["code"] == "model_warming"


async def test_a_client_that_leaves_gives_up_its_place(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """Who leaves while waiting frees the place; the model goes on starting."""
    await look(app, cluster, COLD)
    (task,) = asked(url, 1)
    await until(holds(url, 1))
    task.cancel()
    await until(holds(url, 0))
    cluster.awake.set()
    await until(lambda: app.directory.models["demo"].state == "running")
    assert cluster.exchanges == []


@pytest.mark.parametrize("outcome", ["failed", "removed"])
async def test_waiting_ends_when_the_start_fails(
    url: str, app: RouterApp, cluster: LocalCluster, outcome: str
) -> None:
    """A model that fails or is removed while requests wait is a 503 to each of them at once."""
    await look(app, cluster, COLD)
    tasks = asked(url, 3)
    await until(holds(url, 3))
    if outcome == "failed":
        await look(app, cluster, replace(COLD, state="failed"))
    else:
        del cluster.backends["demo"]
        await app.directory.refresh()
    for answer in await asyncio.gather(*tasks):
        assert (answer.status, answer.error["code"]) == (503, "model_unavailable")


async def test_waking_a_model_does_not_make_the_router_unready(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """/ready stays 200 while a model comes back from zero, and is 503 while a new version of it
    starts."""
    await look(app, cluster, COLD)
    await look(app, cluster, replace(COLD, state="warming", replicas=STARTING))
    assert (await request("GET", url + "/ready")).status == 200
    await look(app, cluster, replace(COLD, state="warming", replicas=STARTING, version=2.0))
    assert (await request("GET", url + "/ready")).status == 503


async def test_the_time_that_is_left_is_told_to_the_model(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """The time a request has waited is taken from what its answer may take."""
    app.settings = RouterSettings(request_timeout_s=100)
    await look(app, cluster, COLD)
    tasks = asked(url, 1)
    await until(holds(url, 1))
    cluster.awake.set()
    await tasks[0]
    ((_, exchange),) = cluster.exchanges
    assert exchange.deadline_s is not None
    assert 0 < exchange.deadline_s < 100
    assert json.loads(exchange.body)["messages"][0]["content"] == "word-0"


class Refusing(EchoBackend):
    """An echo whose first exchanges fail with this, before anything has begun with them."""

    def __init__(self, *errors: BackendUnavailable) -> None:
        super().__init__("demo", EchoConfig())
        self.errors = list(errors)

    async def exchange(self, request: Exchange) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        async for item in super().exchange(request):
            yield item


async def test_what_no_replica_took_waits_for_one(app: RouterApp, cluster: LocalCluster) -> None:
    """A request that comes as the last replica goes is sent again once another runs."""
    cluster.backends["demo"] = Refusing(NotTaken("gone"), NotTaken("gone again"))
    async with serving(app) as url:
        seen = app.directory.models["demo"]
        await look(app, cluster, replace(seen, replicas={"RUNNING": 1, "STARTING": 1}))
        answer = await post(url + CHAT, chat())
    assert answer.status == 200
    assert len(cluster.exchanges) == 3


async def test_a_death_that_serve_has_not_noticed(app: RouterApp, cluster: LocalCluster) -> None:
    """After a replica died, what none takes waits, though the last one is still said to run."""
    cluster.backends["demo"] = Refusing(ReplicaDied("died"), NotTaken("none"), NotTaken("none"))
    async with serving(app) as url:
        answer = await post(url + CHAT, chat())
    assert answer.status == 200
    assert len(cluster.exchanges) == 4


@pytest.mark.parametrize(
    ("error", "replicas"),
    [
        (NotTaken("all are full"), {"RUNNING": 1}),
        (BackendUnavailable("it died with it"), {"RUNNING": 1, "STARTING": 1}),
    ],
)
async def test_nothing_else_is_sent_again(
    app: RouterApp, cluster: LocalCluster, error: BackendUnavailable, replicas: dict[str, int]
) -> None:
    """A request that a replica may have begun with, or that no further replica is coming for, is
    a 503: it might end the next replica too."""
    cluster.backends["demo"] = Refusing(error)
    async with serving(app) as url:
        await look(app, cluster, Application("demo", "echo", "running", 0.0, replicas))
        answer = await post(url + CHAT, chat())
    assert (answer.status, answer.error["message"]) == (503, error.message)
    assert len(cluster.exchanges) == 1
