"""The outermost layer: what comes in and goes out of every request, Serve's own answers included.

Serve reads some request headers as commands to itself and answers some errors as plain text, all
before or after the router's turn. `middlewares` is named in serve_config.yaml by
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, Serve's hook for putting a layer around itself.
"""

import re
import uuid
from collections.abc import Sequence

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.errors import (
    BackendOverloaded,
    BackendTimeout,
    BackendUnavailable,
    RoundhouseError,
    UnknownPath,
)
from deployments.exchange import EVENT_STREAM, JSON
from serve_app.error_response import body_from_error, headers_from_error

REQUEST_ID = "roundhouse.request_id"
SAFE_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")

# With these a client could turn off its own time limit, keep the model at work after it has left,
# or steer Serve's choice of a replica.
CONTROL_HEADERS = frozenset(
    {
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"serve-multiplexed-model-id",
        b"x-session-id",
        b"x-request-id",
    }
)
CONTROL_PREFIX = b"x-serve-"

Headers = list[tuple[bytes, bytes]]


def middlewares() -> list[Middleware]:
    """For Serve: the layers around the router's replica, innermost first."""
    return [Middleware(Edge)]


def request_id_of(scope: Scope) -> str:
    """The id that the edge gave a request."""
    return str(scope[REQUEST_ID])


class Edge:
    """Strips control headers, gives every request an id, and every error OpenAI's form.

    Applied twice it works once: the router has it too, for where Serve's hook is not set.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await _refuse_websocket(scope, send)
        elif scope["type"] != "http" or REQUEST_ID in scope:
            await self._app(scope, receive, send)
        else:
            request_id = _request_id(scope["headers"])
            headers = [(k, v) for k, v in scope["headers"] if not _is_control(k)]
            scope["headers"] = [*headers, (b"x-request-id", request_id)]
            scope[REQUEST_ID] = request_id.decode()
            await self._app(scope, receive, EdgeSend(send, request_id))


class EdgeSend:
    """Sends an answer on with the request's id; an error that is not JSON is replaced."""

    def __init__(self, send: Send, request_id: bytes) -> None:
        self._send = send
        self._request_id = request_id
        self._instead: RoundhouseError | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message)
        elif self._instead is None:
            await self._send(message)
        elif not message.get("more_body", False):
            await self._send({"type": "http.response.body", "body": body_from_error(self._instead)})

    async def _start(self, message: Message) -> None:
        status, headers = message["status"], list(message.get("headers", ()))
        if status >= 400 and not _is_ours(headers):
            self._instead = error_from_status(status)
            status = self._instead.status
            headers = encoded(headers_from_error(self._instead))
        headers = [(k, v) for k, v in headers if k.lower() != b"x-request-id"]
        headers.append((b"x-request-id", self._request_id))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    """Answers the handshake as if it were a GET, where the server can; else with a bare 403."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    error = UnknownPath("WebSockets are not served.")
    headers = [*encoded(headers_from_error(error)), (b"x-request-id", _request_id([]))]
    start = {"type": "websocket.http.response.start", "status": error.status}
    await send({**start, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body_from_error(error)})


def error_from_status(status: int) -> RoundhouseError:
    """One of ours for an error that Serve itself answered with."""
    match status:
        case 404:
            return UnknownPath("No such URL.")
        case 408 | 504:
            return BackendTimeout("The request took too long.")
        case 429:
            return BackendOverloaded("Too many requests are waiting.", retry_after_s=1)
        case 502 | 503:
            return BackendUnavailable("The router cannot answer now.", retry_after_s=1)
        case _:
            return RoundhouseError()


def encoded(headers: Sequence[tuple[str, str]]) -> Headers:
    """Headers as ASGI has them."""
    return [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers]


def _is_control(name: bytes) -> bool:
    """Serve takes `_` and `-` in these names as equal, and so does this."""
    canonical = name.lower().replace(b"_", b"-")
    return canonical in CONTROL_HEADERS or canonical.startswith(CONTROL_PREFIX)


def _is_ours(headers: Headers) -> bool:
    types = (v for k, v in headers if k.lower() == b"content-type")
    return next(types, b"").decode("latin-1").startswith((JSON, EVENT_STREAM))


def _request_id(headers: Headers) -> bytes:
    """The client's id if it is one that may stand in logs and headers, else a new one."""
    for name, value in headers:
        if name.lower() == b"x-request-id" and SAFE_ID.fullmatch(value):
            return value
    return uuid.uuid4().hex.encode()
