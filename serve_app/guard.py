"""What a request may be, before anything behind the router sees it.

The guard bounds the body in size and time, reads it as strict JSON, checks the fields that it can
judge, and asks for the client's key. It does not know which models there are.
"""

import asyncio
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from starlette.types import Receive, Scope

from deployments.body import MAX_ECHO_CHARS, parse_object, with_fields
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
from serve_app.parameters import check_fields, model_from_body

UTF8 = ("", "utf-8", "utf8")
PLAIN_PATH = re.compile(r"/|(?:/[A-Za-z0-9._:@-]+)+")  # no empty part, no slash at the end
MAX_PATH_CHARS = 1000
STREAMING_PATHS = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}
)
ENCODED_MODEL = b"/v1/models/"  # clients encode the slash in a model's name
MAX_HEADERS_BYTES = 64 * 1024
BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Request:
    """A request that may go on: `model` is what the client called it, alias or not; `streamed`
    whether it asked for events."""

    path: str
    body: bytes
    model: str
    streamed: bool = False


class ClientGone(Exception):
    """The client closed the connection while sending its request; there is nobody to answer."""


def check_path(scope: Scope) -> str:
    """The path, if it is one that could be ours. Routing and rights rest on it alone, never on
    the Host header or on the path as it was encoded.

    Raises: UnknownPath.
    """
    path = str(scope["path"])
    raw = scope.get("raw_path") or b""
    encoded = b"%" in raw and not raw.startswith(ENCODED_MODEL)
    plain = len(path) <= MAX_PATH_CHARS and PLAIN_PATH.fullmatch(path)
    if not plain or encoded or ".." in path:
        raise UnknownPath(f"Invalid URL ({path[:MAX_ECHO_CHARS]}).")
    return path


def headers_from_scope(scope: Scope) -> Mapping[str, str]:
    """The request's headers, lower case. One that is given twice is both, joined by a comma, so
    that two of which one would pass do not pass.

    Raises: HeadersTooLarge.
    """
    if sum(len(k) + len(v) for k, v in scope["headers"]) > MAX_HEADERS_BYTES:
        raise HeadersTooLarge(f"The headers are larger than {MAX_HEADERS_BYTES} bytes.")
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def read_request(
    scope: Scope,
    receive: Receive,
    settings: RouterSettings,
    take: Callable[[int], None] = lambda num_bytes: None,
) -> Request:
    """The request, checked. `take` is told how large the body is, or has become, before it is
    kept, and may raise.

    Raises: RequestError, ClientGone, what `take` raises.
    """
    headers = headers_from_scope(scope)
    _check_media_type(headers)
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            body = await _read_body(headers, receive, settings.max_body_bytes, take)
    except TimeoutError as exc:
        raise RequestTimeout("The request body took too long to arrive.") from exc
    return request_from_body(scope["path"], body)


def request_from_body(path: str, body: bytes) -> Request:
    """The request in a body. `model_type` is replaced by `model`, which every backend knows."""
    fields = parse_object(body)
    model = model_from_body(fields)
    check_fields(path, fields)
    if "model_type" in fields:
        body = with_fields(body, drop=("model_type",), model=model)
    streamed = path in STREAMING_PATHS and fields.get("stream") is True
    return Request(path, body, model, streamed)


def check_key(headers: Mapping[str, str], keys: Iterable[bytes]) -> None:
    """Compares in constant time; no keys configured means that none is asked for.

    `keys` are digests. Raises: InvalidApiKey.
    """
    keys = tuple(keys)
    if not keys:
        return
    match = BEARER.fullmatch(headers.get("authorization", ""))
    if not match:
        raise InvalidApiKey(
            "You didn't provide an API key. Send it as 'Authorization: Bearer KEY'."
        )
    given = digest(match[1])
    matches = [hmac.compare_digest(given, key) for key in keys]  # all of them: in constant time
    if not any(matches):
        raise InvalidApiKey("Incorrect API key provided.")


def digest(key: str) -> bytes:
    """A key's digest: all that the router keeps of it."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _check_media_type(headers: Mapping[str, str]) -> None:
    media_type, _, parameters = headers.get("content-type", "").partition(";")
    if media_type.strip().lower() != "application/json":
        raise UnsupportedMediaType("Send the request as 'Content-Type: application/json'.")
    match = re.search(r"charset\s*=\s*\"?([\w-]+)", parameters, re.IGNORECASE)
    if match and match[1].lower() not in UTF8:
        raise UnsupportedMediaType("A JSON body is UTF-8; no other charset is read.")
    if headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        raise UnsupportedMediaType("Compressed request bodies are not read.")


async def _read_body(
    headers: Mapping[str, str], receive: Receive, limit: int, take: Callable[[int], None]
) -> bytes:
    declared = headers.get("content-length", "0")
    if not declared.isdecimal():
        raise InvalidRequest("The Content-Length header is not a number.")
    if int(declared[:20]) > limit:
        raise _too_large(limit)
    take(int(declared))
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            raise _too_large(limit)
        take(size)
        if not message.get("more_body", False):
            return b"".join(pieces)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is larger than {limit} bytes.")
