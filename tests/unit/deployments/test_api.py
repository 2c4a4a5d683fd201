import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest

from deployments.api import ApiBackend
from deployments.config import ApiConfig, ApiModel
from deployments.errors import (
    BackendError,
    UnsupportedEndpoint,
    UpstreamError,
    UpstreamNotConfigured,
)
from deployments.exchange import EVENT_STREAM, Exchange, Head, Item, Tail
from tests.plain_http import CHAT
from tests.polling import until
from tests.upstream import EVENTS, WHOLE, Act, Script, Upstream

KEY = "sk-the-operators-own-key"
STREAM = b"".join(EVENTS)


@pytest.fixture
async def upstream(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Upstream]:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    async with Upstream() as server:
        yield server


@pytest.fixture
async def backend(upstream: Upstream) -> AsyncIterator[ApiBackend]:
    model = ApiModel(upstream_model="up", base_url=upstream.url, api_key_env="UPSTREAM_KEY")
    api = ApiBackend("api", ApiConfig(models={"demo": model}))
    await api.start()
    yield api
    await api.stop()


def asking(body: bytes = b'{"model":"demo"}', path: str = CHAT) -> Exchange:
    return Exchange(path, body, "request-1", "demo")


async def taken(backend: ApiBackend, request: Exchange | None = None) -> list[Item]:
    return [item async for item in backend.exchange(request or asking())]


def body_of(items: list[Item]) -> bytes:
    return b"".join(item for item in items if isinstance(item, bytes))


async def test_what_goes_up(backend: ApiBackend, upstream: Upstream) -> None:
    """The model is replaced, every other value kept; our key and the request id go along."""
    await taken(backend, asking(b'{"a": [1.0,  2e0], "model": "demo", "b":"\\u00e9"}'))
    (received,) = upstream.received
    assert received.path == CHAT
    assert received.body == b'{"a":[1.0,  2e0],"model":"up","b":"\\u00e9"}'
    assert received.headers == {
        "host": upstream.url.removeprefix("http://").removesuffix("/v1"),
        "accept": "*/*",
        "accept-encoding": "identity",
        "authorization": f"Bearer {KEY}",
        "content-length": str(len(received.body)),
        "content-type": "application/json",
        "user-agent": "roundhouse",
        "x-client-request-id": "request-1",
        "x-request-id": "request-1",
    }


async def test_a_whole_answer_comes_down(backend: ApiBackend) -> None:
    """Head, the upstream's bytes, and the cost."""
    items = await taken(backend)
    assert items[0] == Head(200, "application/json")
    assert body_of(items) == WHOLE
    assert items[-1] == Tail(5, 2)


@pytest.mark.parametrize("size", [1, 3, 50, len(STREAM)])
async def test_a_stream_comes_down(backend: ApiBackend, upstream: Upstream, size: int) -> None:
    """However the upstream cuts it, the same bytes arrive, in whole events."""
    pieces = tuple(STREAM[i : i + size] for i in range(0, len(STREAM), size))
    upstream.scripts["up"] = Script(pieces, content_type=EVENT_STREAM)
    items = await taken(backend)
    assert items[0] == Head(200, EVENT_STREAM)
    assert body_of(items) == STREAM
    assert all(item.endswith(b"\n\n") for item in items if isinstance(item, bytes))
    assert items[-1] == Tail(5, 2)


async def test_an_event_leaves_before_the_next_has_come(
    backend: ApiBackend, upstream: Upstream
) -> None:
    """The first event reaches the reader while the upstream has not yet made the second."""
    release = asyncio.Event()
    steps = (EVENTS[0], release, *EVENTS[1:])
    upstream.scripts["up"] = Script(steps, content_type=EVENT_STREAM)
    items = backend.exchange(asking())
    assert isinstance(await anext(items), Head)
    assert await anext(items) == EVENTS[0]
    release.set()
    assert body_of([item async for item in items]) == b"".join(EVENTS[1:])


async def test_other_endpoints_are_refused(backend: ApiBackend, upstream: Upstream) -> None:
    """The operator's key is good for answers only: no files, no jobs, whatever a client asks."""
    with pytest.raises(UnsupportedEndpoint):
        await taken(backend, asking(path="/v1/fine_tuning/jobs"))
    assert upstream.received == []


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses", "/v1/audio/speech"])
async def test_any_endpoint_is_passed(backend: ApiBackend, upstream: Upstream, path: str) -> None:
    """A path that gives answers goes to the same path of the upstream."""
    upstream.scripts["up"] = Script((b"\xff\xf3sound",), content_type="audio/mpeg")
    items = await taken(backend, asking(path=path))
    assert items == [Head(200, "audio/mpeg"), b"\xff\xf3sound"]
    assert upstream.received[0].path == path


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 502, 503, 529])
async def test_an_upstreams_error_is_passed(
    backend: ApiBackend, upstream: Upstream, status: int
) -> None:
    """Status, body and Retry-After of an error are the upstream's, however the body is cut."""
    body = b'{ "error": {"message": "no", "code": null} }'
    headers = {"retry-after": "17", "x-ratelimit-remaining-requests": "0", "openai-project": "p"}
    upstream.scripts["up"] = Script((body[:9], body[9:]), status, headers=headers)
    passed = (("retry-after", "17"), ("x-ratelimit-remaining-requests", "0"))
    assert await taken(backend) == [Head(status, "application/json", passed), body]


async def test_an_error_never_quotes_the_key(backend: ApiBackend, upstream: Upstream) -> None:
    """An upstream that repeats the key it was sent does not give it to the client."""
    quoted = f'{{"error":{{"message":"Incorrect API key: {KEY}"}}}}'.encode()
    half = len(quoted) - 20  # inside the key
    upstream.scripts["up"] = Script((quoted[:half], quoted[half:]), 401)
    assert body_of(await taken(backend)) == b'{"error":{"message":"Incorrect API key: [redacted]"}}'


@pytest.mark.parametrize("content_type", ["application/json", EVENT_STREAM])
async def test_no_answer_quotes_the_key(
    backend: ApiBackend, upstream: Upstream, content_type: str
) -> None:
    """Nor does one that calls itself good, wherever the network cuts it."""
    text = f'{{"choices":[],"echo":"{KEY}","finish_reason":"stop"}}'.encode()
    quoted = b"data: " + text + b"\n\ndata: [DONE]\n\n" if content_type == EVENT_STREAM else text
    half = quoted.index(KEY.encode()) + 5
    upstream.scripts["up"] = Script((quoted[:half], quoted[half:]), content_type=content_type)
    body = body_of(await taken(backend))
    assert body == quoted.replace(KEY.encode(), b"[redacted]")


@pytest.mark.parametrize(
    "script",
    [
        Script((b"<html>nginx sk-the-operators-own-key</html>",), 502, "text/html"),
        Script((b"upstream connect error",), 502, "text/plain"),
        Script((), 502, None),
        Script((gzip.compress(b'{"error":{}}'),), 502, headers={"content-encoding": "gzip"}),
        Script((b'{"a":"' + b"x" * (1 << 21) + b'"}',), 502),
    ],
    ids=["page", "text", "nothing", "compressed", "huge"],
)
async def test_an_error_that_is_not_json_gets_our_words(
    backend: ApiBackend, upstream: Upstream, script: Script
) -> None:
    """A proxy's page, nothing, or what cannot be read: the status stays, the body is OpenAI's."""
    upstream.scripts["up"] = script
    head, body = await taken(backend)
    assert head == Head(502, "application/json")
    expected = b'{"error":{"message":"The upstream answered with status 502 and no more that can '
    assert (
        body == expected + b'be read.","type":"server_error","param":null,"code":"upstream_error"}}'
    )


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (Script((), 302, headers={"location": "http://127.0.0.1:1/"}), "redirect"),
        (Script((gzip.compress(WHOLE),), headers={"content-encoding": "gzip"}), "compressed"),
        (Script((b"<html>",), content_type="text/html; charset=utf-8"), "web page"),
        (Script(), "broke off"),
        (Script((), content_type=EVENT_STREAM), "broke off"),
        (Script((b'{"choices":[',)), "broke off"),
        (Script((WHOLE[:40], Act.BREAK)), "ClientPayloadError"),
        (Script((WHOLE[:40], Act.RESET)), "ClientPayloadError"),
        (Script((EVENTS[0][:40], Act.BREAK), content_type=EVENT_STREAM), "ClientPayloadError"),
        (Script((Act.BREAK,)), "ServerDisconnectedError"),
        (Script((Act.RESET,)), "ClientOSError"),
        (Script((WHOLE,), headers={"x-long": "x" * 100_000}), "ClientResponseError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_no_answer_is_an_error(
    backend: ApiBackend, upstream: Upstream, script: Script, said: str
) -> None:
    """A redirect, compressed bytes, a page, nothing, or a part of JSON never pass for an answer."""
    upstream.scripts["up"] = script
    with pytest.raises(UpstreamError) as caught:
        await taken(backend)
    assert said in caught.value.message
    assert "127.0.0.1" not in caught.value.message
    assert len(upstream.received) == 1


@pytest.mark.parametrize("act", [Act.BREAK, Act.RESET])
async def test_an_idle_connection_that_is_closed_is_made_up_for(
    backend: ApiBackend, upstream: Upstream, act: Act
) -> None:
    """In the moment in which it is used again: the request goes once more on another, and no more
    than once."""
    await taken(backend)

    class Once(dict[str, Script]):
        def get(self, key: str, default: Any = None) -> Any:
            return self.pop(key, default)

    upstream.scripts = Once(up=Script((act,)))
    assert body_of(await taken(backend)) == WHOLE
    assert len(upstream.received) == 3
    upstream.scripts = {"up": Script((act,))}
    with pytest.raises(UpstreamError):
        await taken(backend)
    assert len(upstream.received) == 5


@pytest.mark.parametrize(
    "steps",
    [
        (*EVENTS[:3],),
        (*EVENTS[:3], EVENTS[3][:30]),
        (*EVENTS[:3], EVENTS[3][:30], Act.BREAK),
        (*EVENTS[:3], EVENTS[3][:30], Act.RESET),
    ],
    ids=["clean", "clean inside an event", "broken", "reset"],
)
async def test_a_stream_that_is_cut_fails_its_reader(
    backend: ApiBackend, upstream: Upstream, steps: tuple[bytes | Act, ...]
) -> None:
    """A stream without its end raises, however it stopped, after whole events only."""
    upstream.scripts["up"] = Script(steps, content_type=EVENT_STREAM)
    items: list[Item] = []

    async def read() -> None:
        async for item in backend.exchange(asking()):
            items.append(item)

    with pytest.raises(UpstreamError):
        await read()
    assert b"".join(EVENTS[:3]).startswith(body_of(items))
    assert body_of(items) in {b"".join(EVENTS[:n]) for n in range(4)}


async def test_no_key_names_the_variable(
    backend: ApiBackend, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its key a model answers nothing and says which variable is missing."""
    monkeypatch.delenv("UPSTREAM_KEY")
    with pytest.raises(UpstreamNotConfigured, match="environment variable UPSTREAM_KEY"):
        await taken(backend)
    assert upstream.received == []


async def test_keys_stay_with_their_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two upstreams each gets its own key; one that needs none gets none, and no model's URL
    variable moves another model."""
    async with Upstream() as first, Upstream() as second, Upstream() as third:
        for name, value in {"A": "key-a", "B": "key-b", "B_URL": second.url}.items():
            monkeypatch.setenv(name, value)
        models = {
            "a": ApiModel(upstream_model="x", base_url=first.url, api_key_env="A"),
            "b": ApiModel(upstream_model="x", base_url_env="B_URL", api_key_env="B"),
            "c": ApiModel(upstream_model="x", base_url=third.url + "/", api_key_env=None),
        }
        api = ApiBackend("api", ApiConfig(models=models))
        await api.start()
        for model in models:
            _ = [item async for item in api.exchange(Exchange(CHAT, b"{}", "id", model))]
        await api.stop()
        keys = [u.received[0].headers.get("authorization") for u in (first, second, third)]
        assert keys == ["Bearer key-a", "Bearer key-b", None]
        assert third.received[0].path == CHAT


async def test_an_upstream_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, unknown or misspelt, the client hears what happened, and no host."""
    monkeypatch.setenv("KEY", "k")
    urls = ("http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1", "http://[::x/v1")
    models = {
        str(n): ApiModel(upstream_model="x", base_url=url, api_key_env="KEY")
        for n, url in enumerate(urls)
    }
    api = ApiBackend("api", ApiConfig(models=models, connect_timeout_s=60))
    await api.start()
    for model in models:
        with pytest.raises(BackendError) as caught:
            _ = [item async for item in api.exchange(Exchange(CHAT, b"{}", "id", model))]
        assert caught.value.status == 502
        assert not any(host in caught.value.message for host in ("127.0.0.1", "invalid", "::"))
    await api.stop()


@pytest.mark.parametrize("begun", [False, True], ids=["before the head", "within the stream"])
async def test_a_reader_that_leaves_closes_the_connection(
    backend: ApiBackend, upstream: Upstream, begun: bool
) -> None:
    """A cancelled reader's connection is closed, so that the upstream stops working for it."""
    steps = (EVENTS[0], Act.HANG) if begun else (Act.HANG,)
    upstream.scripts["up"] = Script(steps, content_type=EVENT_STREAM)
    reading = asyncio.create_task(taken(backend))
    await upstream.arrived.wait()
    assert backend.num_running == 1
    reading.cancel()
    await upstream.gone.wait()
    await until(lambda: upstream.num_connections == 0)
    assert backend.num_running == 0


async def test_closing_the_iterator_closes_the_connection(
    backend: ApiBackend, upstream: Upstream
) -> None:
    """A reader that stops reading frees its slot and the upstream's."""
    upstream.scripts["up"] = Script((EVENTS[0], Act.HANG), content_type=EVENT_STREAM)
    async with aclosing(backend.exchange(asking())) as items:
        await anext(items)
        await anext(items)
    await upstream.gone.wait()
    assert backend.num_running == 0


async def test_connections_are_kept(backend: ApiBackend, upstream: Upstream) -> None:
    """Answers that ended well share one connection; stopping closes it, and may be repeated."""
    for _ in range(3):
        await taken(backend)
    assert upstream.num_connections == 1
    await backend.stop()
    await backend.stop()
    await until(lambda: upstream.num_connections == 0)


async def test_the_upstream_can_be_trusted_to_speak(upstream: Upstream) -> None:
    """The scripted upstream itself: a plain client gets what the script says."""
    async with aiohttp.ClientSession() as session:
        async with session.post(upstream.url + "/x", json={"model": "m"}) as response:
            assert await response.read() == WHOLE
        async with session.post(upstream.url + "/x", json={"model": "m", "stream": True}) as answer:
            assert await answer.read() == STREAM
