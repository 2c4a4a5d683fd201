"""API models through the whole router, over real HTTP on both sides."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest

from deployments.api import ApiBackend
from deployments.config import ApiConfig, ApiModel, EchoConfig
from deployments.testing import EchoBackend
from serve_app.config import RouterSettings
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving
from tests.loop_clock import LoopClock
from tests.plain_http import CHAT, chat, events_of, opened, post
from tests.polling import until
from tests.upstream import EVENTS, WHOLE, Act, Script, Upstream

KEY = "sk-the-operators-own-key"
STREAM = b"".join(EVENTS)
REFUSAL = b'{ "error":  {"message":"no", "type":"x", "param":null, "code":null} }'
CUTS: dict[str, tuple[bytes | Act, ...]] = {
    "clean": EVENTS[:3],
    "clean, inside an event": (*EVENTS[:3], EVENTS[3][:25]),
    "broken": (*EVENTS[:3], Act.BREAK),
    "reset": (*EVENTS[:3], EVENTS[3][:25], Act.RESET),
}


@pytest.fixture
async def upstream(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Upstream]:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    async with Upstream() as server:
        yield server


@asynccontextmanager
async def api_router(*urls: str) -> AsyncIterator[tuple[str, RouterApp]]:
    """A router before one API application, whose models are api-0, api-1 and so on, and an echo."""
    models = {
        f"api-{n}": ApiModel(upstream_model="up", base_url=url, api_key_env="UPSTREAM_KEY")
        for n, url in enumerate(urls)
    }
    api = ApiBackend("api", ApiConfig(models=models, connect_timeout_s=60))
    await api.start()
    app = RouterApp(LocalCluster({"api": api, "echo": EchoBackend("echo", EchoConfig())}))
    async with serving(app) as url:
        yield url, app
    await api.stop()


@pytest.fixture
async def url(upstream: Upstream) -> AsyncIterator[str]:
    async with api_router(upstream.url) as (address, _):
        yield address


@pytest.mark.parametrize(("stream", "expected"), [(False, WHOLE), (True, STREAM)])
async def test_the_answer_is_the_upstreams_bytes(url: str, stream: bool, expected: bytes) -> None:
    """Byte for byte, streamed or not, with who served it and the request's id beside."""
    answer = await post(url + CHAT, chat(model="api-0", stream=stream))
    assert (answer.status, answer.body) == (200, expected)
    assert answer.headers["x-served-by"] == "api-0"
    assert answer.headers["content-type"] == ("text/event-stream" if stream else "application/json")


@pytest.mark.parametrize("size", [1, 7])
async def test_a_stream_in_crumbs_is_the_same_stream(
    url: str, upstream: Upstream, size: int
) -> None:
    """An upstream that sends a few bytes at a time, inside characters too, changes nothing."""
    crumbs = tuple(STREAM[i : i + size] for i in range(0, len(STREAM), size))
    upstream.scripts["up"] = Script(crumbs, content_type="text/event-stream")
    assert (await post(url + CHAT, chat(model="api-0", stream=True))).body == STREAM


async def test_the_openai_client_reads_it(url: str) -> None:
    """OpenAI's own client, validating strictly, reads the upstream's answer through us."""
    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key="x", max_retries=0, _strict_response_validation=True
    ) as client:
        messages = [{"role": "user", "content": "hi"}]
        whole = await client.chat.completions.create(model="api-0", messages=messages)
        assert whole.choices[0].message.content == "Grüße ☃"
        stream = await client.chat.completions.create(model="api-0", messages=messages, stream=True)
        chunks = [chunk async for chunk in stream]
    said = [c.delta.content or "" for chunk in chunks for c in chunk.choices]
    assert "".join(said) == "Grüße ☃"
    assert chunks[-1].usage is not None


async def test_only_the_model_changes_on_the_way_up(url: str, upstream: Upstream) -> None:
    """Every other value goes up as the client wrote it, byte for byte."""
    body = (
        b'{"x": 1.50e+00, "model": "api-0",  "messages":[{"role": "user", "content":"\\u00e9\\/"}],'
        b' "seed":12345678901234567 }'
    )
    await post(url + CHAT, body)
    assert upstream.received[0].body == (
        b'{"x":1.50e+00,"model":"up","messages":[{"role": "user", "content":"\\u00e9\\/"}],'
        b'"seed":12345678901234567}'
    )


async def test_nothing_of_the_clients_headers_goes_up(url: str, upstream: Upstream) -> None:
    """The upstream learns our key and the request's id: nothing else."""
    headers = {
        "authorization": "Bearer sk-the-clients-own",
        "cookie": "session=1",
        "x-forwarded-for": "10.0.0.1",
        "openai-organization": "theirs",
        "traceparent": "00-1-1-00",
        "x-request-id": "id-7",
    }
    await post(url + CHAT, chat(model="api-0"), headers)
    (received,) = upstream.received
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["x-client-request-id"] == "id-7"
    assert received.headers["x-request-id"] == "id-7"
    assert set(headers) & set(received.headers) == {"authorization", "x-request-id"}
    assert "the-clients-own" not in str(received.headers)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses", "/v1/completions"])
async def test_other_endpoints_pass(url: str, upstream: Upstream, path: str) -> None:
    """What OpenAI adds next works here too: the path goes up, the bytes come down."""
    upstream.scripts["up"] = Script((b'{"object": "list",  "data":[]}',))
    answer = await post(url + path, {"model": "api-0", "input": "x", "prompt": "x"})
    assert (answer.status, answer.body) == (200, b'{"object": "list",  "data":[]}')
    assert upstream.received[0].path == path


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
async def test_an_upstreams_error_is_passed(
    url: str, upstream: Upstream, status: int, stream: bool
) -> None:
    """Status, body and Retry-After of an upstream's error reach the client as they are."""
    upstream.scripts["up"] = Script((REFUSAL,), status, headers={"Retry-After": "17"})
    answer = await post(url + CHAT, chat(model="api-0", stream=stream))
    assert (answer.status, answer.body) == (status, REFUSAL)
    assert answer.headers["retry-after"] == "17"


@pytest.mark.parametrize(
    "script",
    [
        Script((f'{{"error":{{"message":"bad key {KEY}"}}}}'.encode(),), 401),
        Script((f"<html>{KEY}</html>".encode(),), 502, "text/html"),
        Script((f'{{"error":{{"message":"bad key {KEY}"}}}}'.encode(),), 500, "text/plain"),
    ],
    ids=["json", "page", "json called text"],
)
async def test_the_key_never_comes_down(url: str, upstream: Upstream, script: Script) -> None:
    """However an upstream quotes our key, the client does not see it; what it sees is JSON."""
    upstream.scripts["up"] = script
    answer = await post(url + CHAT, chat(model="api-0"))
    assert answer.status == script.status
    assert answer.headers["content-type"] == "application/json"
    assert "message" in answer.json["error"]
    assert KEY.encode() not in answer.body


async def test_a_missing_key_names_the_variable(
    url: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its key a model is listed, and says what it needs: 503, the variable by name."""
    monkeypatch.delenv("UPSTREAM_KEY")
    answer = await post(url + CHAT, chat(model="api-0"))
    assert (answer.status, answer.error["code"]) == (503, "upstream_not_configured")
    assert "UPSTREAM_KEY" in answer.error["message"]
    assert upstream.received == []


@pytest.mark.parametrize(
    "script",
    [
        Script((), 307, headers={"location": "http://127.0.0.1:9/v1/chat/completions"}),
        Script((gzip.compress(WHOLE),), headers={"content-encoding": "gzip"}),
        Script((b"<html>hello</html>",), content_type="text/html"),
        Script(),
        Script((WHOLE[:60],)),
        Script((WHOLE[:60], Act.BREAK), sized=True),
        Script((EVENTS[0][:30], Act.RESET), content_type="text/event-stream"),
        Script((Act.RESET,)),
    ],
    ids=["redirect", "gzip", "page", "empty", "cut", "short", "cut event", "reset"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_no_answer_is_a_502(
    url: str, upstream: Upstream, script: Script, stream: bool
) -> None:
    """A redirect, compressed bytes, a page, nothing, half an answer: 502."""
    upstream.scripts["up"] = script
    answer = await post(url + CHAT, chat(model="api-0", stream=stream))
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert b"127.0.0.1" not in answer.body
    assert len(upstream.received) == 1


async def test_an_upstream_that_refuses_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, or not to be found: 502, without a host's name; a fallback may answer instead."""
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    async with api_router("http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1") as (url, app):
        answers = [await post(url + CHAT, chat(model=f"api-{n}")) for n in range(2)]
        app.settings = RouterSettings(fallbacks={"api-0": ["api-1", "echo"]})
        backed = await post(url + CHAT, chat(model="api-0"))
    for answer in answers:
        assert (answer.status, answer.error["code"]) == (502, "upstream_error")
        assert b"127.0.0.1" not in answer.body
        assert b"invalid" not in answer.body
    assert (backed.status, backed.headers["x-served-by"]) == (200, "echo")


@pytest.mark.parametrize("steps", CUTS.values(), ids=CUTS.keys())
async def test_a_cut_stream_ends_with_one_error(
    url: str, upstream: Upstream, steps: tuple[bytes | Act, ...]
) -> None:
    """However a stream is cut, the client gets whole events, then the error, and no [DONE]."""
    upstream.scripts["up"] = Script(steps, content_type="text/event-stream")
    answer = await post(url + CHAT, chat(model="api-0", stream=True))
    *events, last = events_of(answer.body)
    assert answer.body.startswith(EVENTS[0])
    assert events == events_of(b"".join(EVENTS[: len(events)]))
    assert last["error"]["code"] == "upstream_error"


async def test_an_upstream_that_hangs_runs_out_of_time(
    upstream: Upstream, clock: LoopClock
) -> None:
    """A silent upstream is a 504 before the first byte; its connection is closed."""
    upstream.scripts["up"] = Script((Act.HANG,))
    async with api_router(upstream.url) as (url, app):
        app.settings = RouterSettings(request_timeout_s=100)
        asked = asyncio.create_task(post(url + CHAT, chat(model="api-0")))
        await upstream.arrived.wait()
        clock.skip(101)
        answer = await asked
        assert (answer.status, answer.error["code"]) == (504, "timeout")
        await upstream.gone.wait()


async def test_a_stream_that_hangs_runs_out_of_time(upstream: Upstream, clock: LoopClock) -> None:
    """An upstream that stops within its stream: the client hears so, and it is disconnected."""
    upstream.scripts["up"] = Script((EVENTS[0], Act.HANG), content_type="text/event-stream")
    async with api_router(upstream.url) as (url, app):
        app.settings = RouterSettings(request_timeout_s=100)
        async with opened(url + CHAT, chat(model="api-0", stream=True)) as response:
            assert await response.content.readexactly(len(EVENTS[0])) == EVENTS[0]
            clock.skip(101)
            rest = await response.read()
        assert json.loads(rest.removeprefix(b"data: "))["error"]["code"] == "timeout"
        await upstream.gone.wait()


async def test_leaving_a_stream_closes_the_upstream(url: str, upstream: Upstream) -> None:
    """A client that leaves within the stream: the upstream's connection is closed."""
    upstream.scripts["up"] = Script((EVENTS[0], Act.HANG), content_type="text/event-stream")
    async with opened(url + CHAT, chat(model="api-0", stream=True)) as response:
        await response.content.readany()
        assert not upstream.gone.is_set()
    await upstream.gone.wait()
    await until(lambda: upstream.num_connections == 0)


@pytest.mark.parametrize("steps", [(Act.HANG,), (WHOLE[:30], Act.HANG)], ids=["head", "body"])
async def test_leaving_while_waiting_closes_the_upstream(
    url: str, upstream: Upstream, steps: tuple[bytes | Act, ...]
) -> None:
    """A client that leaves before its answer has come: the same."""
    upstream.scripts["up"] = Script(steps)
    waiting = asyncio.create_task(post(url + CHAT, chat(model="api-0")))
    await upstream.arrived.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await upstream.gone.wait()
    await until(lambda: upstream.num_connections == 0)
