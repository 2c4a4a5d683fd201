import re

import msgspec
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.edge import Edge, middlewares
from tests.unit.serve_app.asgi_calls import Sent, call, http_scope

NEW_ID = re.compile("[0-9a-f]{32}")


def answering(status: int, content_type: bytes, *pieces: bytes) -> ASGIApp:
    """An app that gives one answer, and notes what it saw in the scope."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"Content-Type", content_type), (b"X-Request-Id", b"the-app's")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


async def seen_by_app(*headers: tuple[bytes, bytes]) -> dict[bytes, bytes]:
    """The request headers that reach an app behind the edge."""
    seen: list[tuple[bytes, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(scope["headers"])
        await answering(200, b"application/json")(scope, receive, send)

    await call(Edge(app), http_scope(*headers))
    assert len(dict(seen)) == len(seen)
    return dict(seen)


@pytest.mark.parametrize(
    "name",
    [
        b"x-request-timeout-seconds",
        b"X-Request-Timeout-Seconds",
        b"x_request_timeout_seconds",
        b"x-request-disconnect-disabled",
        b"serve_multiplexed_model_id",
        b"Serve-Multiplexed-Model-Id",
        b"x-session-id",
        b"x-serve-anything",
        b"X_Serve_Anything",
    ],
)
async def test_control_headers_do_not_get_in(name: bytes) -> None:
    """What Serve would take for a command from the operator is gone, however it is spelt."""
    headers = await seen_by_app((name, b"1"), (b"accept", b"*/*"))
    assert set(headers) == {b"accept", b"x-request-id"}


@pytest.mark.parametrize("given", [b"a", b"req_0123-abc.d:e", b"x" * 128])
async def test_a_safe_id_is_kept(given: bytes) -> None:
    """A client's own request id is used within and answered with."""
    assert (await seen_by_app((b"X-Request-ID", given)))[b"x-request-id"] == given
    app = Edge(answering(200, b"application/json"))
    assert (await call(app, http_scope((b"x-request-id", given)))).headers["x-request-id"] == (
        given.decode()
    )


@pytest.mark.parametrize(
    "given", [b"", b"a\r\nset-cookie: b", b"x" * 129, b"-a", b"a b", b"<b>", b"\xff", b"a\n"]
)
async def test_an_unsafe_id_is_replaced(given: bytes) -> None:
    """An id that could forge a header or a line of the log, or fill it, is replaced by ours."""
    within = (await seen_by_app((b"x-request-id", given)))[b"x-request-id"].decode()
    assert NEW_ID.fullmatch(within)


async def test_every_request_has_an_id() -> None:
    """Without one from the client each request gets a new one."""
    sent = [await call(Edge(answering(200, b"text/plain")), http_scope()) for _ in range(2)]
    first, second = (s.headers["x-request-id"] for s in sent)
    assert NEW_ID.fullmatch(first)
    assert NEW_ID.fullmatch(second)
    assert first != second


def error_of(sent: Sent) -> tuple[int, str, str | None]:
    assert sent.headers["content-type"] == "application/json"
    error = msgspec.json.decode(sent.body)["error"]
    return sent.status, error["code"], sent.headers.get("retry-after")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, (404, "unknown_url", None)),
        (408, (504, "timeout", None)),
        (429, (429, "rate_limit_exceeded", "1")),
        (500, (500, "internal_error", None)),
        (502, (503, "model_unavailable", "1")),
        (503, (503, "model_unavailable", "1")),
        (504, (504, "timeout", None)),
    ],
)
async def test_serves_own_errors_are_replaced(
    status: int, expected: tuple[int, str, str | None]
) -> None:
    """Serve's plain text becomes OpenAI's envelope, and what it said does not get out."""
    sent = await call(Edge(answering(status, b"text/plain", b"secret ", b"trace")), http_scope())
    assert error_of(sent) == expected
    assert b"secret" not in sent.body
    assert sent.messages[-1].get("more_body", False) is False


@pytest.mark.parametrize("content_type", [b"application/json", b"text/event-stream; charset=x"])
async def test_our_own_errors_pass(content_type: bytes) -> None:
    """An error that is in OpenAI's form already goes out as it is, with the request's id only."""
    sent = await call(
        Edge(answering(503, content_type, b'{"error":', b"{}}")),
        http_scope((b"x-request-id", b"i")),
    )
    assert (sent.status, sent.body) == (503, b'{"error":{}}')
    assert sent.headers == {"Content-Type": content_type.decode(), "x-request-id": "i"}


@pytest.mark.parametrize("status", [200, 204, 302])
async def test_what_is_no_error_passes(status: int) -> None:
    """An answer that is no error is not touched, whatever its type."""
    sent = await call(Edge(answering(status, b"text/plain", b"a", b"b")), http_scope())
    assert (sent.status, sent.body) == (status, b"ab")


async def test_applied_twice_it_works_once() -> None:
    """Around Serve and inside the router: one id, and the inner app's answer."""
    (layer,) = middlewares()
    inner = Edge(answering(200, b"application/json", b"{}"))
    sent = await call(layer.cls(inner, **layer.kwargs), http_scope())
    names = [name for name, _ in sent.messages[0]["headers"]]
    assert names.count(b"x-request-id") == 1
    assert NEW_ID.fullmatch(sent.headers["x-request-id"])


async def test_websockets_are_refused() -> None:
    """A server that can is told to answer the handshake with our envelope; another, to close."""
    scope: Scope = {"type": "websocket", "path": "/v1/realtime", "headers": []}
    app = Edge(answering(200, b"text/plain"))
    sent = await call(app, {**scope, "extensions": {"websocket.http.response": {}}})
    assert error_of(sent) == (404, "unknown_url", None)
    assert sent.headers["x-request-id"]
    assert (await call(app, scope)).messages == [{"type": "websocket.close", "code": 1008}]
