"""The client of the benchmarks against a real server that answers by its script."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from benchmarks.load import Client, Load, Run
from benchmarks.upstream import EVENTS, NUM_CHUNKS, WHOLE, Upstream


def reply(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n"
    return head.encode() + body


GOOD = reply(WHOLE)
FAILURES = {
    "status 503": reply(b"", "503 Service Unavailable"),
    "not a chat completion": reply(b'{"object":"list"}'),
    "ClientPayloadError": reply(WHOLE, length=len(WHOLE) + 1),  # it breaks off
    "63 tokens, not 64": reply(
        WHOLE.replace(b'"completion_tokens": 64', b'"completion_tokens": 63')
    ),
}


@asynccontextmanager
async def server(script: Sequence[bytes]) -> AsyncIterator[str]:
    """Answers each request with the next of the script and hangs up; the last is repeated."""
    rest = list(script)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().splitlines() if line.startswith(b"content-length")]
        await reader.readexactly(int(lengths[0].split(b":")[1]))
        writer.write(rest.pop(0) if len(rest) > 1 else rest[0])
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def upstream() -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(Upstream, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def whole(num_requests: int | None, concurrency: int = 1, **settings: object) -> Load:
    return Load("x", False, NUM_CHUNKS, concurrency, num_requests, **settings)  # type: ignore[arg-type]


async def run(url: str, load: Load) -> Run:
    async with Client(url, load) as client:
        return await client.measure()


@pytest.mark.parametrize("reason", FAILURES)
async def test_a_failure_is_counted_with_its_reason(reason: str) -> None:
    """Every way to fail is a sample with its reason, neither dropped nor asked again."""
    async with server([GOOD, FAILURES[reason], FAILURES[reason], GOOD]) as url:
        found = await run(url, whole(num_requests=4))
    assert found.failures == {reason: 2}
    assert (len(found.samples), len(found.good)) == (4, 2)


async def test_a_server_that_is_gone_fails_every_request() -> None:
    """A refused connection counts as a failure of the request."""
    with socket.socket() as deaf:  # it has the port, and does not listen
        deaf.bind(("127.0.0.1", 0))
        found = await run(f"http://127.0.0.1:{deaf.getsockname()[1]}", whole(num_requests=3))
    assert sum(found.failures.values()) == 3


async def test_a_stream_without_its_end_is_a_failure() -> None:
    """What looks like a whole answer, but has no `[DONE]`, is broken."""
    body = b"".join(EVENTS[:-1])
    async with server([reply(body)]) as url:
        found = await run(url, Load("x", True, NUM_CHUNKS, 1, num_requests=2))
    assert found.failures == {"broken stream": 2}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_upstream_answers_as_the_client_asks(stream: bool) -> None:
    """The upstream's answers are whole: every token of every request, on kept connections."""
    async with upstream() as url:
        found = await run(url, Load("x", stream, NUM_CHUNKS, 4, num_requests=12))
    assert found.failures == {}
    assert [sample.num_tokens for sample in found.samples] == [NUM_CHUNKS] * 12
    if stream:
        assert {len(sample.gaps_s) for sample in found.samples} == {NUM_CHUNKS - 1}


async def test_a_loop_by_time_asks_as_often_as_it_can() -> None:
    """Without a number of requests it goes on for its time, and misses none."""
    async with upstream() as url:
        found = await run(url, whole(None, concurrency=2, lasts_s=0.2))
    assert len(found.good) == len(found.samples) >= 2
    assert found.elapsed_s >= 0.2  # which no client's first request takes


async def test_an_open_loop_asks_all_that_arrives() -> None:
    """As many requests as the schedule has, whoever answers, and each with its latency."""
    load = whole(None, lasts_s=0.3, rate_per_s=100)
    async with server([FAILURES["status 503"], GOOD]) as url:
        found = await run(url, load)
    assert len(found.samples) == len(load.arrivals_s()) > 10
    assert found.failures == {"status 503": 1}


async def test_an_open_loops_latency_has_the_wait_before_the_request() -> None:
    """A stall of the whole client shows in the requests that were due meanwhile."""
    load = whole(None, lasts_s=0.3, rate_per_s=200)
    async with upstream() as url, Client(url, load) as client:
        measuring = asyncio.create_task(client.measure())
        await asyncio.sleep(0.05)
        time.sleep(0.1)  # noqa: ASYNC251 - the stall
        found = await measuring
    assert max(sample.answer_s for sample in found.good) > 0.08


def test_a_prompt_is_as_long_as_asked_and_like_no_other() -> None:
    """Prompts differ from their beginning, so that no prefix cache answers for the engine."""
    load = whole(1, prompt_bytes=32_000)
    texts = [msgspec.json.decode(load.body(n))["messages"][0]["content"] for n in (1, 2)]
    assert all(32_000 <= len(text) < 32_100 for text in texts)
    assert texts[0][:30] != texts[1][:30]
