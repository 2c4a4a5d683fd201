"""Traffic while something changes: real HTTP at a steady rate, every answer checked.

It runs in a thread of its own, so that a test may block while it changes the system. Arrivals do
not wait for answers: a system that stands still is seen as it is.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle

import aiohttp

from tests.change.answers import Asked, Judge, Outcome, judged
from tests.plain_http import CHAT


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of each model, in turn: whole answers, and streams that are over at once or
    go on for `long_s`, through whatever is changed meanwhile; and how an answer is judged."""

    models: Sequence[str]
    rate_per_s: float = 12.0
    long_s: float = 6.0
    one_long_in: int = 20
    judge: Judge = judged
    limit_s: float = 120.0

    def requests(self) -> Iterator[Asked]:
        for number, model in enumerate(cycle(self.models)):
            turn = number // len(self.models)
            if turn % self.one_long_in == 0:
                yield Asked(model, True, 60, self.long_s / 60)
            else:
                yield Asked(model, turn % 2 == 0, 8, 0)


@dataclass(slots=True)
class Seen:
    """What has come of the requests so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    num_open: int = 0

    def count(self, kind: str, model: str | None = None) -> int:
        return sum(o.kind == kind and model in {None, o.asked.model} for o in self.outcomes)

    @property
    def kinds(self) -> Counter[str]:
        return Counter(outcome.kind for outcome in self.outcomes)

    @property
    def bad(self) -> list[str]:
        """Everything that is not good, in words."""
        return [str(outcome) for outcome in self.outcomes if outcome.kind != "good"]


@contextmanager
def traffic(url: str, load: Load) -> Iterator[Seen]:
    """Runs the load during the block; after it, every answer that was begun is waited for."""
    seen, stop = Seen(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_drive(url, load, seen, stop)))
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


async def _drive(url: str, load: Load, seen: Seen, stop: threading.Event) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
        asyncio.TaskGroup() as requests,
    ):
        loop, requests_of_load = asyncio.get_running_loop(), load.requests()
        next_at = loop.time()
        while not stop.is_set():
            requests.create_task(_one(session, url, next(requests_of_load), seen, load))
            next_at = max(next_at + 1 / load.rate_per_s, loop.time())
            await asyncio.sleep(next_at - loop.time())


async def _one(
    session: aiohttp.ClientSession, url: str, asked: Asked, seen: Seen, load: Load
) -> None:
    seen.num_open += 1
    try:
        async with asyncio.timeout(load.limit_s):
            seen.outcomes.append(await ask(session, url, asked, load.judge))
    except TimeoutError:
        seen.outcomes.append(Outcome(asked, "unreachable", f"no end within {load.limit_s} s"))
    finally:
        seen.num_open -= 1


async def ask(
    session: aiohttp.ClientSession, url: str, asked: Asked, judge: Judge = judged
) -> Outcome:
    """One request and the judgement of its answer."""
    headers = {"x-request-id": asked.nonce}
    try:
        async with session.post(url + CHAT, json=asked.body, headers=headers) as response:
            return await ended(response, asked, judge)
    except aiohttp.ClientError as exc:
        return Outcome(asked, "unreachable", repr(exc))


async def ended(response: aiohttp.ClientResponse, asked: Asked, judge: Judge = judged) -> Outcome:
    """The judgement of an answer that has begun, at its end."""
    received = bytearray()
    complete = await _received(response, received)
    return judge(asked, response.status, bytes(received), complete)


async def _received(response: aiohttp.ClientResponse, received: bytearray) -> bool:
    """Whether all came that HTTP had announced."""
    try:
        async for piece in response.content.iter_any():
            received.extend(piece)
    except aiohttp.ClientError:
        return False
    return True
