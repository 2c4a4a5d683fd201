"""An upstream's HTTP answer as the items of an exchange: its bytes, or an error in their place.

Bytes that a client could not read as an answer (compressed, a web page, a part of the whole) are
refused. What is passed on is not changed, except that it never quotes our key.
"""

from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING

import msgspec

from deployments.answer_end import AnswerEnd
from deployments.body import is_object
from deployments.errors import INVALID_REQUEST, SERVER_ERROR, UpstreamError
from deployments.exchange import EVENT_STREAM, JSON, Head, Item
from deployments.whole_events import WholeBody, WholeEvents

if TYPE_CHECKING:
    import aiohttp

MAX_ERROR_BYTES = 1 << 20
# Not `openai-organization` and its like: who pays for the key is not the client's business.
PASSED_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry", "openai-processing-ms")
PASSED_PREFIXES = ("x-ratelimit-",)


async def relay(
    response: "aiohttp.ClientResponse", redact: Callable[[bytes], bytes]
) -> AsyncGenerator[Item, None]:
    """The upstream's answer. What it has sent while the reader was busy comes as one piece.

    Raises: UpstreamError for what is no answer, and for one that ends before it is complete.
    """
    head = head_from_response(response)
    if response.status >= 400:
        body = redact(await _error_body(response))
        yield Head(head.status, JSON, head.headers)
        yield body
        return
    _check(response)
    end = AnswerEnd(head.content_type)
    # A whole answer goes on in one piece, a stream event by event: no part of it can hide a key.
    whole = WholeEvents() if head.content_type.startswith(EVENT_STREAM) else WholeBody()
    started = False
    while piece := await response.content.readany():
        end.feed(piece)
        if ready := whole.add(piece):
            if not started:
                # With its first bytes: until then another backend may still take over.
                started = True
                yield head
            yield redact(ready)
    if not end.complete:
        raise UpstreamError("The upstream broke off its answer.")
    if not started:
        yield head
    if rest := whole.flush():
        yield redact(rest)
    if tail := end.tail():
        yield tail


def head_from_response(response: "aiohttp.ClientResponse") -> Head:
    """Status and content type as they are, and the headers that concern a client."""
    passed = tuple(
        (name.lower(), value)
        for name, value in response.headers.items()
        if name.lower() in PASSED_HEADERS or name.lower().startswith(PASSED_PREFIXES)
    )
    return Head(response.status, response.headers.get("content-type", JSON), passed)


def _check(response: "aiohttp.ClientResponse") -> None:
    if response.status >= 300:
        raise UpstreamError("The upstream answered with a redirect, which is not followed.")
    if _is_compressed(response):
        raise UpstreamError("The upstream's answer is compressed, which was not asked for.")
    if response.headers.get("content-type", "").startswith("text/html"):
        raise UpstreamError("The upstream answered with a web page: is its URL right?")


def _is_compressed(response: "aiohttp.ClientResponse") -> bool:
    return response.headers.get("content-encoding", "identity").lower() != "identity"


async def _error_body(response: "aiohttp.ClientResponse") -> bytes:
    """The upstream's own words if they are JSON that a client can read, else ours."""
    body = b""
    while len(body) <= MAX_ERROR_BYTES and (piece := await response.content.readany()):
        body += piece
    if len(body) <= MAX_ERROR_BYTES and is_object(body):
        return body
    status = response.status
    kind = SERVER_ERROR if status >= 500 else INVALID_REQUEST
    message = f"The upstream answered with status {status} and no more that can be read."
    error = {"message": message, "type": kind, "param": None, "code": "upstream_error"}
    return msgspec.json.encode({"error": error})
