import asyncio
import re

import aiohttp
import pytest

from deployments.echo_script import SECRET
from serve_app.config import RouterSettings
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster
from tests.loop_clock import LoopClock
from tests.plain_http import CHAT, Answered, chat, events_of, opened, post
from tests.polling import PATIENCE_S, until


def ended_badly(answer: Answered, words: str) -> dict[str, object]:
    """The error of a stream that said `words` and then went wrong: one error event, no [DONE]."""
    assert answer.status == 200
    *events, last = events_of(answer.body)
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert text == words
    assert list(last) == ["error"]
    error: dict[str, object] = last["error"]
    return error


async def read_to(response: aiohttp.ClientResponse, words: bytes) -> bytes:
    """What comes, up to these words."""
    body = b""
    async with asyncio.timeout(PATIENCE_S):
        while words not in body:
            body += await response.content.readany()
    return body


@pytest.mark.parametrize("fallbacks", [{}, {"demo": ["other"]}])
@pytest.mark.parametrize(
    ("text", "code"), [("a b [[fail]]", "model_unavailable"), ("a b [[crash]]", "internal_error")]
)
async def test_a_stream_that_breaks_says_so(
    url: str, app: RouterApp, text: str, code: str, fallbacks: dict[str, list[str]]
) -> None:
    """After the first byte nobody takes over: the stream ends with the error."""
    app.settings = RouterSettings(fallbacks=fallbacks)
    answer = await post(url + CHAT, chat(text, stream=True))
    assert ended_badly(answer, "a b")["code"] == code
    assert SECRET.encode() not in answer.body


async def test_a_crash_before_the_stream_is_an_error_answer(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What goes wrong before the first byte has an error's status, and keeps its secret."""
    for stream in (False, True):
        answer = await post(url + CHAT, chat("[[crash]]", stream=stream))
        assert (answer.status, answer.error["code"]) == (500, "internal_error")
        assert SECRET.encode() not in answer.body
    assert SECRET not in caplog.text


async def test_an_overload_says_when_to_come_back(url: str) -> None:
    """A full queue is a 429 with Retry-After, of the type that clients know."""
    answer = await post(url + CHAT, chat("[[overload]]"))
    assert (answer.status, answer.error["type"]) == (429, "rate_limit_error")
    assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_time_limit_before_the_first_byte(
    url: str, app: RouterApp, cluster: LocalCluster, stream: bool
) -> None:
    """A model that does not begin in time: 504, and its slot is free."""
    app.settings = RouterSettings(request_timeout_s=0.05)
    answer = await post(url + CHAT, chat("[[wait]]", stream=stream))
    assert (answer.status, answer.error["code"]) == (504, "timeout")
    assert cluster.backends["demo"].num_running == 0


async def test_a_time_limit_within_the_stream(
    url: str, app: RouterApp, cluster: LocalCluster, clock: LoopClock
) -> None:
    """A model that stops within its answer: the stream ends with the timeout as its error."""
    app.settings = RouterSettings(request_timeout_s=100)
    async with opened(url + CHAT, chat("a b [[wait]]", stream=True)) as response:
        body = await read_to(response, b" b")
        clock.skip(101)
        answer = Answered(response.status, {}, body + await response.read())
    assert ended_badly(answer, "a b")["code"] == "timeout"
    assert cluster.backends["demo"].num_running == 0


async def test_no_header_moves_the_time_limit(url: str, app: RouterApp) -> None:
    """The operator's limit stands, whatever the client says."""
    app.settings = RouterSettings(request_timeout_s=0.05)
    headers = {"x-request-timeout-seconds": "0", "x-request-disconnect-disabled": "?1"}
    assert (await post(url + CHAT, chat("[[wait]]"), headers)).status == 504


async def test_words_arrive_as_they_are_made(url: str, cluster: LocalCluster) -> None:
    """The first words reach the client while the model has not said the last."""
    async with opened(url + CHAT, chat("a b [[wait]]", stream=True)) as response:
        await read_to(response, b" b")
        assert cluster.backends["demo"].num_running == 1


async def test_a_client_that_leaves_its_stream(url: str, cluster: LocalCluster) -> None:
    """Leaving within a stream frees the backend's slot, though the answer has no end."""
    demo = cluster.backends["demo"]
    async with opened(url + CHAT, chat("a [[wait]]", stream=True)) as response:
        await response.content.readany()
        assert demo.num_running == 1
    await until(lambda: demo.num_running == 0)


async def test_a_client_that_leaves_while_waiting(url: str, cluster: LocalCluster) -> None:
    """Leaving before an answer that is not streamed frees the slot too."""
    demo = cluster.backends["demo"]
    waiting = asyncio.create_task(post(url + CHAT, chat("[[wait]]")))
    await until(lambda: demo.num_running == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: demo.num_running == 0)


async def test_leaving_ends_one_request_only(url: str, cluster: LocalCluster) -> None:
    """Those who stay get their own answers to the end, and nobody else's."""
    leaving = [asyncio.create_task(post(url + CHAT, chat("[[wait]]"))) for _ in range(5)]
    nonces = [f"nonce-{n:02}" for n in range(20)]
    staying = [
        asyncio.create_task(
            post(url + CHAT, chat(f"[[sleep=0.005]] {nonce} and more", stream=n % 2 == 0))
        )
        for n, nonce in enumerate(nonces)
    ]
    await until(lambda: len(cluster.exchanges) == 25)
    for task in leaving:
        task.cancel()
    answers = await asyncio.gather(*staying)
    assert [re.findall("nonce-..", answer.body.decode()) for answer in answers] == [
        [nonce] for nonce in nonces
    ]
    await until(lambda: cluster.backends["demo"].num_running == 0)


@pytest.mark.parametrize("text", ["\r\ndata: [DONE]\r\n\r\nx", "data: [DONE]\n\n{}", "☃\u2028\x85"])
async def test_text_cannot_end_a_stream(url: str, text: str) -> None:
    """Text that looks like the stream's own framing stays text."""
    answer = await post(url + CHAT, chat(text, stream=True))
    *events, done = events_of(answer.body)
    said = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert said.split() == text.split()
    assert done == "[DONE]"
    assert answer.body.count(b"[DONE]") == 1 + text.count("[DONE]")
