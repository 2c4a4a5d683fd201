"""Processes killed under load: what they had not begun to answer is answered by others."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.change.answers import Held, Outcome
from tests.change.conftest import STEADY, Changing
from tests.change.traffic import Load, ended, traffic
from tests.integration.instance import Instance
from tests.plain_http import CHAT, opened

NUM_STREAMS = 8


@dataclass(frozen=True, slots=True)
class Stream:
    """One that has begun, and is held."""

    asked: Held
    response: aiohttp.ClientResponse

    async def end(self) -> Outcome:
        """Lets it go on, and judges it."""
        self.asked.sign.touch()
        return await ended(self.response, self.asked)


@pytest.fixture
def restored(changing: Changing) -> Iterator[Changing]:
    """The instance, which is as it was after the test, whatever becomes of that."""
    before = changing.applications
    yield changing
    if changing.applications != before:
        changing.deploy(before)
    for name in before:
        changing.wait_settled(name, 1)


@contextmanager
def asked_if_ready(instance: Instance) -> Iterator[set[int]]:
    """What /ready says during the block, asked all the while."""
    said: set[int] = set()
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            said.add(instance.get("/ready")[0])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield said
    finally:
        over.set()
        thread.join()


def replicas_told(instance: Instance, application: str) -> Any:
    """Those that the router says there are."""
    row = instance.application(application)
    return row and row["replicas"]


@pytest.mark.parametrize("model", ["steady", "scaled"])
def test_a_replica_is_killed(restored: Changing, model: str) -> None:
    """With another replica or without: every answer that had not begun comes all the same, and
    streams that had say that they are broken. The dead one is replaced."""
    num_replicas = 2 if model == "scaled" else 1
    changed = restored.applications
    if num_replicas > 1:
        changed[model]["deployments"] = [{"name": "echo", "num_replicas": num_replicas}]
        restored.deploy(changed)
        restored.wait_settled(model, num_replicas)
    killed = min(restored.pids(model))
    with traffic(restored.url, Load([model], one_long_in=10)) as seen:
        restored.instance.wait(lambda: seen.count("good") > 20)
        os.kill(killed, signal.SIGKILL)
        restored.instance.wait(lambda: len(restored.pids(model) - {killed}) == num_replicas)
        restored.wait_settled(model, num_replicas)
        num_good = seen.count("good")
        restored.instance.wait(lambda: seen.count("good") > num_good + 20)
    assert [o for o in seen.outcomes if o.kind not in {"good", "broken"}] == []
    broken = [o for o in seen.outcomes if o.kind == "broken"]
    assert all(o.asked.stream and "replica died" in o.detail for o in broken)


def test_the_controller_is_killed(restored: Changing) -> None:
    """Serve's controller is on no request's way: while it is away, and while it comes back and has
    yet to hear from the replicas that it finds, every answer is whole and /ready stays 200. Then
    what is deployed is done again."""
    instance, changed = restored.instance, restored.applications
    (killed,) = instance.pids("ray::ServeController")
    changed["scaled"]["deployments"] = [{"name": "echo", "num_replicas": 2}]
    with (
        traffic(restored.url, Load(STEADY, one_long_in=10)) as seen,
        asked_if_ready(instance) as said,
    ):
        instance.wait(lambda: seen.count("good") > 20 and said)
        os.kill(killed, signal.SIGKILL)
        instance.wait(lambda: instance.pids("ray::ServeController") - {killed})
        restored.deploy(changed)
        restored.wait_settled("scaled", 2)
        # The router has looked at the new controller.
        instance.wait(lambda: replicas_told(instance, "scaled") == {"RUNNING": 2})
    assert seen.bad == []
    assert said == {200}


async def test_a_router_is_killed(restored: Changing) -> None:
    """What goes through one of two routers dies with it, and nothing else: its streams are cut,
    never ended as if they were whole, and those of the other go on to their last byte. Then there
    are two again, and both answer."""
    changed = restored.applications
    changed["router"]["deployments"][0]["num_replicas"] = 2
    restored.deploy(changed)
    restored.wait_settled("router", 2)
    logs = restored.logs("router")
    killed = min(logs)
    with traffic(restored.url, Load(STEADY)) as seen:
        await asyncio.to_thread(wait_until_all_answer, restored)
        async with open_streams(restored) as streams:
            os.kill(killed, signal.SIGKILL)
            await asyncio.to_thread(wait_until_replaced, restored, killed)
            outcomes = [await stream.end() for stream in streams]
        await asyncio.to_thread(wait_until_all_answer, restored)
    lost = [o for o in (*outcomes, *seen.outcomes) if o.kind != "good"]
    assert 0 < len([o for o in outcomes if o.kind == "cut"]) < NUM_STREAMS
    assert {o.kind for o in outcomes} == {"good", "cut"}
    assert {o.kind for o in lost} <= {"cut", "refused"}
    others = [log for log in logs[killed].parent.glob("replica_router_*") if log != logs[killed]]
    written = "".join(log.read_text() for log in others)
    assert [str(o) for o in lost if o.asked.nonce in written] == []


@asynccontextmanager
async def open_streams(changing: Changing) -> AsyncIterator[list[Stream]]:
    """Streams that have begun, and go on when they are asked to end."""
    async with AsyncExitStack() as stack:
        streams = []
        for _ in range(NUM_STREAMS):
            asked = Held("steady", True, 8, 0)
            asking = opened(changing.url + CHAT, asked.body, {"x-request-id": asked.nonce})
            streams.append(Stream(asked, await stack.enter_async_context(asking)))
            stack.callback(asked.sign.unlink, missing_ok=True)
        yield streams


def wait_until_replaced(changing: Changing, killed: int) -> None:
    """Serve has missed a router, and another runs in its place."""
    changing.instance.wait(lambda: killed not in changing.logs("router"))
    changing.wait_settled("router", 2)


def wait_until_all_answer(changing: Changing) -> None:
    """Each router that there is now takes requests, from now on."""
    before = {log: num_asked(log) for log in changing.logs("router").values()}
    changing.instance.wait(lambda: all(num_asked(log) > num for log, num in before.items()))


def num_asked(log: Path) -> int:
    """How many requests for a model have a line."""
    return log.read_text().count(f"POST {CHAT}") if log.exists() else 0
