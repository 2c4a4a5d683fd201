"""The checker is checked: each way in which an answer can fall short is told from the others."""

import asyncio
import json
import threading
from collections.abc import Callable

import aiohttp
import pytest

from deployments.config import EchoConfig
from deployments.testing import EchoBackend
from serve_app.router import RouterApp
from tests.change.answers import Asked
from tests.change.traffic import Load, Seen, ask, traffic
from tests.local_cluster import LocalCluster, serving
from tests.plain_http import CHAT

Harm = Callable[[bytes], bytes]  # an answer as it was sent, and as it arrives


async def through(harm: Harm, asked: Asked) -> str:
    """The kind of outcome of a true answer that is harmed on its way."""
    cluster = LocalCluster({"echo": EchoBackend("echo", EchoConfig())})
    async with serving(RouterApp(cluster)) as url, aiohttp.ClientSession() as session:
        headers = {"x-request-id": asked.nonce}
        async with session.post(url + CHAT, json=asked.body, headers=headers) as response:
            answer = await response.read()
        return await _served(harm, answer, response.headers["content-type"], asked)


async def _served(harm: Harm, answer: bytes, content_type: str, asked: Asked) -> str:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n".encode()
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(answer), answer)
        writer.write(harm(head + b"transfer-encoding: chunked\r\n\r\n" + body))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with aiohttp.ClientSession() as session:
            return (await ask(session, url, asked)).kind


def without_done(answer: bytes) -> bytes:
    return _resized(answer, lambda body: body.replace(b"data: [DONE]\n\n", b""))


def other_words(answer: bytes) -> bytes:
    return _resized(answer, lambda body: body.replace(b"-3", b"-4"))


def error_event(answer: bytes) -> bytes:
    event = b"data: " + json.dumps({"error": {"message": "died"}}).encode() + b"\n\n"
    return _resized(
        answer, lambda body: body[: len(body) // 2].rpartition(b"\n\n")[0] + b"\n\n" + event
    )


def _resized(answer: bytes, change: Harm) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    changed = change(body.partition(b"\r\n")[2].removesuffix(b"\r\n0\r\n\r\n"))
    return head + b"\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(changed), changed)


@pytest.mark.parametrize(
    ("harm", "stream", "kind"),
    [
        (bytes, True, "good"),
        (bytes, False, "good"),
        (without_done, True, "truncated"),
        (lambda answer: answer[:-200], True, "cut"),
        (lambda answer: answer[:-200], False, "cut"),
        (lambda _: b"", True, "unreachable"),
        (other_words, True, "wrong"),
        (other_words, False, "wrong"),
        (error_event, True, "broken"),
        (lambda _: b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", False, "refused"),
    ],
)
async def test_an_answer_is_judged(harm: Harm, stream: bool, kind: str) -> None:
    """A true answer is good; one that is cut, changed, broken off or refused is named as that."""
    assert await through(harm, Asked("echo", stream, num_words=8, pause_s=0)) == kind


async def test_traffic_is_steady_and_waits_for_its_answers() -> None:
    """Requests come at their rate while others are open, and the last answer is waited for."""
    cluster = LocalCluster({"echo": EchoBackend("echo", EchoConfig())})
    async with serving(RouterApp(cluster)) as url:
        load = Load(["echo"], rate_per_s=50, long_s=1, one_long_in=10)
        seen = await asyncio.to_thread(_until_some, url, load)
    assert seen.bad == []
    assert seen.num_open == 0
    assert sum(outcome.asked.num_words == 60 for outcome in seen.outcomes) >= 2


def _until_some(url: str, load: Load) -> Seen:
    pause = threading.Event()
    with traffic(url, load) as seen:
        while seen.count("good") < 20:
            pause.wait(0.05)
    return seen
