"""Too much for a model, through the whole stack: the rest is refused, and nothing stays behind."""

import asyncio
from contextlib import suppress
from typing import Any

import aiohttp
import psutil
import pytest

from tests.integration.conftest import Roundhouse, echo_application
from tests.integration.test_scaling import client, deployed, until_state
from tests.plain_http import CHAT, chat
from tests.polling import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = 4
ROUTER = "router:Router"


async def asked(session: aiohttp.ClientSession, url: str) -> tuple[int, str | None]:
    """The status of a stream that does not end by itself, and when to come back."""
    body = chat("one [[wait]]", "narrow", stream=True)
    async with session.post(url + CHAT, json=body) as response:
        await response.read()
        return response.status, response.headers.get("retry-after")


async def row(roundhouse: Roundhouse) -> dict[str, Any]:
    return await asyncio.to_thread(roundhouse.instance.application, "narrow") or {}


async def num_running(roundhouse: Roundhouse) -> int:
    return await asyncio.to_thread(roundhouse.num_running, "narrow", "echo")


async def burst(roundhouse: Roundhouse) -> None:
    """Four times what the model takes at a time; then every client leaves."""
    url = roundhouse.instance.url
    async with client() as session:
        tasks = [asyncio.create_task(asked(session, url)) for _ in range(4 * ROOM)]
        await until(lambda: sum(task.done() for task in tasks) == 3 * ROOM)
        refused = [task.result() for task in tasks if task.done()]
        assert [status for status, _ in refused] == [429] * 3 * ROOM
        assert all(after is not None and 1 <= int(after) <= 30 for _, after in refused)
        assert (await row(roundhouse))["ongoing"] == ROOM
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


async def test_refused_without_reaching_a_replica(roundhouse: Roundhouse) -> None:
    """At four times what its replica takes, the replica has exactly that in hand and the rest is
    429 with `Retry-After`. When the clients have left, the replica has nothing to do, and the
    router no more sockets than after the first such burst, however many there were."""
    narrow = echo_application("narrow", max_ongoing_requests=ROOM)
    with deployed(roundhouse, narrow):
        await until_state(roundhouse, "narrow", "running")
        assert (await row(roundhouse))["room"] == ROOM
        router = psutil.Process(roundhouse.instance.replicas()[ROUTER])

        async def quiet() -> bool:
            return await num_running(roundhouse) == 0 == (await row(roundhouse))["ongoing"]

        def num_sockets() -> int:
            return len(router.net_connections("tcp"))

        await burst(roundhouse)
        await until(quiet)
        num_after_one = num_sockets()
        for _ in range(3):
            await burst(roundhouse)
            await until(quiet)
        await until(lambda: num_sockets() <= num_after_one)
