"""Too much is refused at once, before a backend hears of it, and leaves nothing behind."""

import asyncio
import gc
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import psutil
import pytest

from deployments.config import EchoConfig
from deployments.errors import BackendOverloaded
from deployments.testing import EchoBackend
from serve_app.admission import Admission
from serve_app.config import RouterSettings
from serve_app.directory import Application
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving
from tests.plain_http import CHAT, Answered, chat, events_of, exchanged, opened, post, request
from tests.polling import until
from tests.unit.serve_app.asgi_calls import Sent, http_scope

ROOM = 4
DEMO = Application("demo", "echo", "running", 0.0, {"RUNNING": 1}, room=ROOM)


@asynccontextmanager
async def asking(url: str, number: int, **more: Any) -> AsyncIterator[list[asyncio.Task[Answered]]]:
    """So many requests under way at once; those that are left at the end are given up."""
    texts = [f"word-{i} [[wait]]" for i in range(number)]
    tasks = [asyncio.create_task(post(url + CHAT, chat(text, **more))) for text in texts]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def with_room(app: RouterApp, cluster: LocalCluster, application: Application = DEMO) -> None:
    cluster.states[application.name] = application
    await app.directory.refresh()


def refused(answer: Answered) -> bool:
    """Whether this is a 429 in OpenAI's envelope, with the time to come back."""
    assert answer.status == 429
    assert answer.error["code"] == "rate_limit_exceeded"
    return 1 <= int(answer.headers["retry-after"]) <= 30


@pytest.mark.parametrize("stream", [False, True])
async def test_beyond_what_replicas_take_requests_are_refused(
    url: str, app: RouterApp, cluster: LocalCluster, stream: bool
) -> None:
    """At four times what its replicas take a model has exactly that in hand; all the others are
    429 with `Retry-After`, and no backend hears of them. A place that is free is taken again, and
    another model is not concerned."""
    await with_room(app, cluster)
    async with asking(url, 4 * ROOM, stream=stream) as tasks:
        await until(lambda: sum(task.done() for task in tasks) == 3 * ROOM)
        assert all(refused(task.result()) for task in tasks if task.done())
        await until(lambda: cluster.backends["demo"].num_running == ROOM)
        assert len(cluster.exchanges) == ROOM
        assert (await post(url + CHAT, chat(model="other"))).status == 200
        next(task for task in tasks if not task.done()).cancel()
        await until(lambda: cluster.backends["demo"].num_running == ROOM - 1)
        assert (await post(url + CHAT, chat())).status == 200
    await until(lambda: cluster.backends["demo"].num_running == 0)


async def test_a_refused_request_goes_to_a_fallback(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """A full model is one that cannot answer: its fallbacks are asked, within their own room."""
    app.settings = RouterSettings(fallbacks={"demo": ["other"]})
    await with_room(app, cluster)
    await with_room(app, cluster, replace(DEMO, name="other", room=2))
    async with asking(url, 2 * ROOM) as tasks:
        await until(lambda: sum(task.done() for task in tasks) == 2 * ROOM - ROOM - 2)
        assert Counter(name for name, _ in cluster.exchanges) == {"demo": ROOM, "other": 2}


async def test_operators_see_how_full_a_model_is(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """/-/models has what each application has in hand for this router, and what it may."""
    await with_room(app, cluster)
    async with asking(url, 3):
        await until(lambda: cluster.backends["demo"].num_running == 3)
        row = (await request("GET", url + "/-/models")).json["applications"][0]
        assert (row["ongoing"], row["room"]) == (3, ROOM)


async def test_who_was_held_is_not_sent_away(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """Requests that have waited for a model to start are all answered, even if they are more than
    it takes at a time."""
    await with_room(app, cluster, replace(DEMO, state="cold", replicas={}, room=0))
    tasks = [asyncio.create_task(post(url + CHAT, chat())) for _ in range(3 * ROOM)]

    async def all_held() -> bool:
        rows = (await request("GET", url + "/-/models")).json["applications"]
        return bool(rows[0]["held"] == 3 * ROOM)

    await until(all_held)
    await with_room(app, cluster)
    assert {(await task).status for task in tasks} == {200}


async def test_the_router_as_a_whole_is_bounded(
    url: str, app: RouterApp, cluster: LocalCluster
) -> None:
    """`max_ongoing_requests` bounds all models together; what is answered from the directory is
    answered still."""
    app.settings = RouterSettings(max_ongoing_requests=2)
    async with asking(url, 2):
        await until(lambda: cluster.backends["demo"].num_running == 2)
        assert refused(await post(url + CHAT, chat(model="other")))
        assert (await request("GET", url + "/ready")).status == 200
    await until(lambda: cluster.backends["demo"].num_running == 0)
    assert (await post(url + CHAT, chat(model="other"))).status == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_are_bounded_together(
    url: str, app: RouterApp, cluster: LocalCluster, chunked: bool
) -> None:
    """`max_ongoing_bytes` bounds the bodies of all requests under way: one that has no room is
    refused as soon as its size is known, and one that fits is answered."""
    app.settings = RouterSettings(max_ongoing_bytes=3000)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n"
    declared = b"content-length: 2000\r\n\r\n{"
    sent = b"transfer-encoding: chunked\r\n\r\n7d0\r\n{" + b" " * 1999 + b"\r\n"
    async with opened(url + CHAT, chat("x" * 1500 + " [[wait]]", stream=True)):
        assert refused(await exchanged(url, head + (sent if chunked else declared)))
        assert (await post(url + CHAT, chat())).status == 200
    await until(lambda: cluster.backends["demo"].num_running == 0)
    assert (await post(url + CHAT, chat("x" * 2500))).status == 200


async def test_a_burst_leaves_nothing_behind(app: RouterApp, cluster: LocalCluster) -> None:
    """After a burst of streams, taken, refused and given up, the router has as many tasks and
    sockets as before."""
    await with_room(app, cluster)
    process = psutil.Process()
    async with serving(app) as url:
        port = int(url.rpartition(":")[2])

        def held() -> tuple[int, int]:
            sockets = [c for c in process.net_connections("tcp") if port in (*c.laddr, *c.raddr)]
            return len(asyncio.all_tasks()), len(sockets)

        before = held()
        for _ in range(3):
            async with asking(url, 8 * ROOM, stream=True) as tasks:
                await until(lambda: sum(task.done() for task in tasks) == 7 * ROOM)
                assert held() != before
        await until(lambda: held() == before)


def test_come_back_when_those_that_are_there_have_gone() -> None:
    """`Retry-After` follows how long the model's answers take, within 1 to 30 seconds."""
    admission = Admission()
    with admission.place(DEMO):
        ongoing = admission._ongoing["demo"]
        assert ongoing.retry_after_s == 1
        for took_s, least_s in ((12.0, 12.0), (0.1, 1.0), (900.0, 30.0)):
            for _ in range(100):
                ongoing.num_requests += 1
                ongoing.ended(took_s)
            assert ongoing.retry_after_s == pytest.approx(least_s, rel=0.01)


def test_counts_are_kept_only_while_there_is_something_to_count() -> None:
    """What admission remembers does not grow with the models there have been."""
    admission = Admission()
    for number in range(1000):
        with admission.place(replace(DEMO, name=f"m{number}", room=1)):
            with (
                pytest.raises(BackendOverloaded),
                admission.place(replace(DEMO, name=f"m{number}", room=1)),
            ):
                pass
            assert admission.ongoing(f"m{number}") == 1
    assert admission._ongoing == {}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_costs_the_same_whatever_the_number_of_models(stream: bool) -> None:
    """The steps that the router takes for a request are as many with 100 models as with one, in a
    router that has served all of them; with 200 a few more, since some metrics have the last of
    them as one."""
    one, some, many = [await _steps(number, stream) for number in (1, 100, 200)]
    assert one == some > 1000
    assert many <= 1.03 * one


async def test_a_quiet_look_costs_the_same_whatever_the_number_of_models() -> None:
    """Where nothing has changed, a look at 200 applications takes as many steps as at one."""

    async def look(number: int) -> int:
        applications = [replace(DEMO, name=f"m{i}") for i in range(number)]
        cluster = LocalCluster({a.name: EchoBackend(a.name, EchoConfig()) for a in applications})
        app = RouterApp(_Still(cluster, applications))
        await app.directory.refresh()
        with _Counted() as counted:
            await app.directory.refresh()
        assert len(app.directory.models) == number
        return counted.num_steps

    assert await look(1) == await look(200)


class _Still(LocalCluster):
    """A cluster that says the same again."""

    def __init__(self, cluster: LocalCluster, applications: list[Application]) -> None:
        super().__init__(cluster.backends)
        self._applications = applications

    async def applications(self) -> list[Application]:
        return self._applications


class _Counted:
    """Counts every step of the interpreter in this thread: a loop over all models would show."""

    num_steps = 0

    def __enter__(self) -> "_Counted":
        gc.collect()
        gc.disable()  # what it would end here, somebody else has left
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        gc.enable()

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        frame.f_trace_opcodes = True
        self.num_steps += event == "opcode"
        return self._trace


async def _steps(num_models: int, stream: bool) -> int:
    """The steps of one request to the last of so many models, after one to each."""
    names = [f"m{i:03}" for i in range(num_models)]
    cluster = LocalCluster({name: EchoBackend(name, EchoConfig()) for name in names})
    app = RouterApp(cluster)
    cluster.states = {name: replace(DEMO, name=name) for name in names}
    await app.directory.refresh()
    for name in names:
        sent = await _called(app, chat("one two three", name, stream=stream))
        assert sent.status == 200
    with _Counted() as counted:
        sent = await _called(app, chat("one two three", names[-1], stream=stream))
    assert events_of(sent.body)[-1] == "[DONE]" if stream else sent.status == 200
    return counted.num_steps


async def _called(app: RouterApp, body: dict[str, Any]) -> Sent:
    """A POST without a server: the steps are the router's own."""
    sent = Sent()
    headers = [(b"content-type", b"application/json"), (b"x-request-id", b"one")]
    scope = http_scope(*headers, method="POST", path=CHAT)
    messages: list[Any] = [
        {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
    ]

    async def receive() -> Any:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    await app.asgi()(scope, receive, sent.send)
    return sent
