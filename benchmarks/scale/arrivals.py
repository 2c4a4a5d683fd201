"""Requests that come whether or not the last ones have been answered, as clients of a service do.

Each is a chat on a connection that is kept alive; what is refused is a sample like any other.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import msgspec

from benchmarks.open_loop import open_loop

PATH = "/v1/chat/completions"
REFUSED = (429, 503)
TEXT_EVENT = b'"content":"'
ROLE_EVENT = b'"content":""'


@dataclass(slots=True)
class Sample:
    """One request as its client saw it. `status` 0: no answer."""

    status: int = 0
    first_token_s: float | None = None
    answer_s: float = 0.0
    whole: bool = False
    retry_after: bool = False

    @property
    def accepted(self) -> bool:
        return self.status == 200

    @property
    def refused(self) -> bool:
        return self.status in REFUSED


async def at_rate(
    url: str, body: dict[str, object], rate_per_s: float, lasts_s: float
) -> list[Sample]:
    """Sends a request each 1 / `rate_per_s` seconds, for so long; then waits for all answers."""
    async with _session() as session:

        async def ask(_number: int, due_s: float) -> Sample:
            return await _ask(session, url, body, due_s)

        due_s = [number / rate_per_s for number in range(round(rate_per_s * lasts_s))]
        _, samples = await open_loop(ask, due_s)
    return samples


async def in_turn(
    url: str, bodies: Sequence[dict[str, object]], num_requests: int, concurrency: int
) -> tuple[float, list[Sample]]:
    """So many clients, each asking again as soon as it is answered; the bodies in turn.

    Returns: seconds it took, and the samples.
    """
    samples: list[Sample] = []
    numbers = iter(range(num_requests))

    async def client(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = bodies[number % len(bodies)]
            samples.append(await _ask(session, url, body, time.perf_counter()))

    async with _session() as session:
        began_s = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(concurrency)))
        return time.perf_counter() - began_s, samples


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=60),
        headers={"content-type": "application/json"},
    )


async def _ask(
    session: aiohttp.ClientSession, url: str, body: dict[str, object], sent_s: float
) -> Sample:
    """Its times count from when it was due."""
    sample = Sample()
    try:
        async with session.post(url + PATH, data=msgspec.json.encode(body)) as response:
            sample.retry_after = "retry-after" in response.headers
            last = b""
            async for piece in response.content.iter_any():
                if sample.first_token_s is None and _has_text(piece):
                    sample.first_token_s = time.perf_counter() - sent_s
                last = (last + piece)[-32:]
            sample.whole = last.endswith(b"[DONE]\n\n") or not body.get("stream")
            sample.status = response.status
    except (aiohttp.ClientError, OSError, TimeoutError):
        pass
    sample.answer_s = time.perf_counter() - sent_s
    return sample


def _has_text(piece: bytes) -> bool:
    return piece.count(TEXT_EVENT) > piece.count(ROLE_EVENT)
