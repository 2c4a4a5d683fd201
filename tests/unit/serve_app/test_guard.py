import asyncio
from collections.abc import Sequence

import pytest
from starlette.types import Message, Receive, Scope

from deployments.errors import (
    HeadersTooLarge,
    InvalidApiKey,
    InvalidRequest,
    PayloadTooLarge,
    RequestTimeout,
    UnknownPath,
    UnsupportedMediaType,
)
from serve_app.config import RouterSettings
from serve_app.guard import (
    MAX_HEADERS_BYTES,
    ClientGone,
    check_key,
    check_path,
    digest,
    headers_from_scope,
    read_request,
    request_from_body,
)

CHAT = "/v1/chat/completions"
BODY = b'{"model":"demo","messages":[{"role":"user","content":"hi"}]}'
JSON = (b"content-type", b"application/json")


def scope(path: str = CHAT, raw: bytes | None = None, *headers: tuple[bytes, bytes]) -> Scope:
    return {"path": path, "raw_path": raw or path.encode(), "headers": list(headers or (JSON,))}


def receiving(*pieces: bytes, end: Message | None = None) -> Receive:
    """A request body in pieces; then `end`, or nothing for ever."""
    messages: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    messages += [end] if end else []

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    return receive


LAST: Message = {"type": "http.request", "body": b"", "more_body": False}


@pytest.mark.parametrize(
    "path", ["/health", CHAT, "/v1/models/org/a-model_v1.5:free@x", "/", "/v1/" + "a" * 900]
)
def test_plain_paths_pass(path: str) -> None:
    """A path of ordinary characters is what it says."""
    assert check_path(scope(path)) == path


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("//v1/models", None),
        ("/v1//models", None),
        ("/v1/chat/completions/", None),
        ("/v1/../health", None),
        ("/v1/..;/health", None),
        ("/v1/models/../../x", None),
        ("/v1/models/../../x", b"/v1/models/%2e%2e/%2e%2e/x"),
        ("/v1/chat/completions", b"/v1%2Fchat/completions"),
        ("/health", b"/%68ealth"),
        ("/v1/models/a b", b"/v1/models/a%20b"),
        ("/v1/models/a\x00", b"/v1/models/a%00"),
        ("/v1/models/\u202edemo", b"/v1/models/%E2%80%AEdemo"),
        ("/v1/models/a\\b", None),
        ("/v1/models/a?b", b"/v1/models/a%3Fb"),
        ("*", None),
        ("", None),
        ("/v1/" + "a" * 1001, None),
    ],
)
def test_other_paths_are_no_urls(path: str, raw: bytes | None) -> None:
    """What two parsers might read differently is nobody's URL, and little of it is quoted."""
    with pytest.raises(UnknownPath) as caught:
        check_path(scope(path, raw))
    assert len(caught.value.message) < 250


def test_a_models_name_may_be_encoded() -> None:
    """Clients encode the slash in a model's name; it is the same name."""
    assert check_path(scope("/v1/models/org/m", b"/v1/models/org%2Fm")) == "/v1/models/org/m"


def test_a_header_that_is_given_twice_is_both() -> None:
    """Of two values neither is preferred."""
    twice = scope(CHAT, None, (b"A", b"1"), (b"b", b"2"), (b"a", b"3"))
    assert headers_from_scope(twice) == {"a": "1, 3", "b": "2"}


def test_headers_are_bounded() -> None:
    """Headers beyond any use are refused."""
    headers_from_scope(scope(CHAT, None, (b"a", b"x" * (MAX_HEADERS_BYTES - 1))))
    with pytest.raises(HeadersTooLarge):
        headers_from_scope(scope(CHAT, None, (b"a", b"x" * MAX_HEADERS_BYTES)))


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"content-type", b"text/plain"),),
        ((b"content-type", b"application/x-www-form-urlencoded"),),
        ((b"content-type", b"multipart/form-data; boundary=x"),),
        ((b"content-type", b"application/json-patch+json"),),
        ((b"content-type", b"application/json; charset=utf-7"),),
        ((b"content-type", b'application/json; charset="UTF-16"'),),
        (JSON, (b"content-type", b"text/plain")),
        (JSON, (b"content-encoding", b"gzip")),
        (JSON, (b"content-encoding", b"gzip"), (b"content-encoding", b"identity")),
    ],
)
async def test_only_plain_json_is_read(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Another type, another charset or a compressed body: 415, before anything is read."""
    request = {"path": CHAT, "raw_path": b"", "headers": list(headers)}
    with pytest.raises(UnsupportedMediaType):
        await read_request(request, receiving(), RouterSettings())


@pytest.mark.parametrize(
    "content_type",
    [b"application/json", b"Application/JSON; charset=UTF-8", b'application/json;charset="utf8"'],
)
async def test_json_is_read_in_pieces(content_type: bytes) -> None:
    """A body that comes in pieces is one body, kept as it was sent."""
    request = scope(CHAT, None, (b"content-type", content_type))
    read = await read_request(request, receiving(BODY[:5], BODY[5:], end=LAST), RouterSettings())
    assert (read.path, read.body, read.model) == (CHAT, BODY, "demo")


async def test_a_declared_size_is_refused_unread() -> None:
    """Content-Length alone suffices for a 413: nothing is read."""
    request = scope(CHAT, None, JSON, (b"content-length", b"1001"))
    with pytest.raises(PayloadTooLarge, match="larger than 1000 bytes"):
        await read_request(request, receiving(), RouterSettings(max_body_bytes=1000))


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"", b"1, 1", b"0x10", b"9" * 5000])
async def test_a_length_that_is_none_is_refused(length: bytes) -> None:
    """A Content-Length that is not a plain number is refused, however long it is."""
    request = scope(CHAT, None, JSON, (b"content-length", length))
    with pytest.raises((InvalidRequest, PayloadTooLarge)):
        await read_request(request, receiving(), RouterSettings())


async def test_a_body_without_a_length_is_bounded_too() -> None:
    """A chunked body is refused as soon as it is too large, without waiting for its end."""
    with pytest.raises(PayloadTooLarge):
        await read_request(
            scope(), receiving(b"x" * 600, b"x" * 600), RouterSettings(max_body_bytes=1000)
        )


async def test_a_slow_body_is_given_up() -> None:
    """A client that stops in the middle of its body gets a 408."""
    with pytest.raises(RequestTimeout):
        await read_request(scope(), receiving(b"{"), RouterSettings(body_timeout_s=0.01))


async def test_a_client_that_leaves_is_not_answered() -> None:
    """A connection that closes within the body ends the request without an error."""
    gone = receiving(b"{", end={"type": "http.disconnect"})
    with pytest.raises(ClientGone):
        await read_request(scope(), gone, RouterSettings())


def test_model_type_is_another_name_for_model() -> None:
    """Backends see `model` only, and the rest of the body as it was."""
    request = request_from_body("/v1/embeddings", b'{"input": [1.0,  2], "model_type":"demo"}')
    assert (request.model, request.body) == ("demo", b'{"input":[1.0,  2],"model":"demo"}')
    both = request_from_body("/v1/embeddings", b'{"model":"demo","model_type":"demo"}')
    assert both.body == b'{"model":"demo"}'


KEYS = (digest("sk-one"), digest("sk-two"))


@pytest.mark.parametrize("header", ["Bearer sk-two", "bearer  sk-one", "BEARER sk-one "])
def test_a_known_key_passes(header: str) -> None:
    """Any of the keys, after the word Bearer in any case."""
    check_key({"authorization": header}, KEYS)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer sk-",
        "Bearer sk-one2",
        "Bearer SK-ONE",
        "Bearer sk-one, Bearer sk-two",
        "Basic c2stb25lOg==",
        "sk-one",
        "Bearer sk-one sk-two",
        "Bearer ' OR 1=1 --",
        "Bearer sk-one\x00",
        "Bearer ÿþ\udcff",
        "Bearer " + "x" * 1_000_000,
    ],
)
def test_anything_else_is_no_key(header: str) -> None:
    """Nothing, another scheme, two keys or a key's beginning: 401, and none of it quoted."""
    with pytest.raises(InvalidApiKey) as caught:
        check_key({"authorization": header}, KEYS)
    assert len(caught.value.message) < 100
    with pytest.raises(InvalidApiKey):
        check_key({}, KEYS)


def test_without_keys_none_is_asked_for() -> None:
    """No keys configured: everybody may come in, whatever header they send."""
    check_key({"authorization": "Bearer anything"}, ())
