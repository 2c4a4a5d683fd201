"""Bad requests over real HTTP: refused by the router itself, in OpenAI's form, saying little."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.body import MAX_ECHO_CHARS
from deployments.config import EchoConfig
from deployments.testing import EchoBackend
from serve_app.config import RouterSettings
from serve_app.parameters import FIELDS_OF_PATH
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving
from tests.plain_http import CHAT, Answered, chat, exchanged, post, request
from tests.unit.serve_app.bad_requests import CATALOGUE, MAX_BODY_BYTES, Bad

MAX_ANSWER_BYTES = 16 * 1024
pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True)
class Target:
    """A router, and the cluster that must not hear of a bad request."""

    url: str
    app: RouterApp
    cluster: LocalCluster


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def target() -> AsyncIterator[Target]:
    cluster = LocalCluster({"demo": EchoBackend("demo", EchoConfig())})
    app = RouterApp(cluster)
    app.settings = RouterSettings(max_body_bytes=MAX_BODY_BYTES)
    async with serving(app) as url:
        yield Target(url, app, cluster)


def quotes_little(answer: Answered, sent: str) -> bool:
    """Whether no run of more than MAX_ECHO_CHARS characters of what was sent comes back."""
    said = answer.json["error"]["message"]
    size = MAX_ECHO_CHARS + 1
    return not any(said[i : i + size] in sent for i in range(max(0, len(said) - size + 1)))


@pytest.mark.parametrize("bad", CATALOGUE, ids=lambda bad: bad.name)
async def test_a_bad_request_is_refused(target: Target, bad: Bad) -> None:
    """Status, code and param say what is wrong; no backend hears of it; little of it comes back."""
    heard = len(target.cluster.exchanges)
    url = target.url + bad.path
    answer = await request(bad.method, url, bad.headers, bad.body)
    error = answer.error
    assert (answer.status, error["code"], error["param"]) == (bad.status, bad.code, bad.param)
    assert error["type"] == "invalid_request_error"
    assert len(answer.body) <= MAX_ANSWER_BYTES
    assert quotes_little(answer, bad.body.decode("utf-8", "replace") + bad.path)
    assert len(target.cluster.exchanges) == heard


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
RAW = {
    "a declared size, unread": (
        HEAD + b"Content-Length: 999999999999\r\n\r\n",
        (413, "payload_too_large"),
    ),
    "a body without end": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
        b"180000\r\n" + b"x" * ((1 << 20) + (1 << 19)) + b"\r\n",
        (413, "payload_too_large"),
    ),
    "two types": (
        HEAD + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
        (415, "unsupported_media_type"),
    ),
    "double slash": (b"GET //v1/models HTTP/1.1\r\nHost: x\r\n\r\n", (404, "unknown_url")),
    "dots": (b"GET /v1/models/../../x HTTP/1.1\r\nHost: x\r\n\r\n", (404, "unknown_url")),
    "dots and a semicolon": (
        b"GET /v1/..;/health HTTP/1.1\r\nHost: x\r\n\r\n",
        (404, "unknown_url"),
    ),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", (404, "unknown_url")),
    "TRACE": (
        b"TRACE /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n",
        (405, "method_not_allowed"),
    ),
    "a websocket": (
        b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        (404, "unknown_url"),
    ),
}


@pytest.mark.parametrize(("sent", "expected"), RAW.values(), ids=RAW.keys())
async def test_bytes_that_no_client_would_send(
    target: Target, sent: bytes, expected: tuple[int, str]
) -> None:
    """What only a socket can send is refused in the same form."""
    answer = await exchanged(target.url, sent)
    assert (answer.status, answer.error["code"]) == expected


async def test_a_body_that_stops(target: Target) -> None:
    """It is waited for as long as the operator says."""
    before, target.app.settings = target.app.settings, RouterSettings(body_timeout_s=0.01)
    answer = await exchanged(target.url, HEAD + b"Content-Length: 50\r\n\r\n{")
    target.app.settings = before
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")


MALFORMED = {
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length and chunks": HEAD
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk of zz": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "NUL in a header": HEAD + b"x-a: \x00\r\nContent-Length: 2\r\n\r\n{}",
    "bytes in the path": b"GET /v1/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_not_http_never_gets_in(target: Target, sent: bytes) -> None:
    """Malformed HTTP is refused by the server under the router, which therefore has no say in the
    form: 400, the connection closed, and no second request in what follows."""
    answer = await exchanged(target.url, sent)
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert target.cluster.exchanges == []


async def test_unknown_models_all_look_alike(target: Target) -> None:
    """The answers to two unknown models differ in the name and in nothing else."""
    names = ("aa", "b/", "Demo", "../")
    answers = [await post(target.url + CHAT, chat(model=name)) for name in names]
    bodies = {
        answer.body.replace(json.dumps(name)[1:-1].encode(), b"NAME", 1)
        for name, answer in zip(names, answers, strict=True)
    }
    assert len(bodies) == 1


FIELD_NAMES = sorted({"model_type", "messages", "extra", *FIELDS_OF_PATH[CHAT]})
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("user")
)
keys = st.sampled_from(["role", "content", "type", "1"])
flat = scalars | st.lists(scalars, max_size=2) | st.dictionaries(keys, scalars, max_size=2)
values = flat | st.lists(flat, max_size=2)


def check_fuzzed(answer: Answered) -> None:
    """Whatever was sent: an answer, or a refusal in OpenAI's form; never a fault of ours."""
    assert answer.status < 500
    assert len(answer.body) <= MAX_ANSWER_BYTES
    if answer.status != 200:
        assert answer.error["type"] == "invalid_request_error"


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELD_NAMES), values, max_size=4), st.booleans())
async def test_any_fields_get_an_answer(
    target: Target, fields: dict[str, Any], whole: bool
) -> None:
    """Any value in any field is answered or refused, and never breaks the router or a backend."""
    body = {**(chat() if whole else {"model": "demo"}), **fields}
    check_fuzzed(await post(target.url + CHAT, json.dumps(body).encode("utf-8", "replace")))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 200), st.integers(0, 5), st.binary(max_size=5))
async def test_any_bytes_get_an_answer(target: Target, at: int, cut: int, new: bytes) -> None:
    """A good body with bytes put in, taken out or changed is answered or refused."""
    body = json.dumps(chat("Grüße, ☃", n=1, stop=["x"], temperature=0.5)).encode()
    check_fuzzed(await post(target.url + CHAT, body[:at] + new + body[at + cut :]))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
async def test_any_model_name_is_unknown(target: Target, name: str) -> None:
    """No name opens anything but the model of that name."""
    answer = await post(target.url + CHAT, chat(model=name))
    expected = {"": 400, "demo": 200}.get(name, 404)
    assert answer.status == expected
