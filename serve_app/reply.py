"""One answer on its way out: ASGI messages, and the errors that can come before or between them."""

from typing import Any

import msgspec
from starlette.types import Message, Scope, Send

from deployments.errors import RoundhouseError
from deployments.exchange import EVENT_STREAM, JSON
from serve_app.account import Account
from serve_app.edge import encoded, request_id_of
from serve_app.error_response import body_from_error, event_from_error, headers_from_error

Headers = list[tuple[str, str]]


class Reply:
    """Sends an answer, whole or piece by piece, and knows how far it has come.

    `account` is the request's; `access_log` the share of the requests that have a line in the log.
    """

    def __init__(self, scope: Scope, send: Send, access_log: float = 0) -> None:
        self.request_id = request_id_of(scope)
        self.account = Account(self.request_id, scope["method"], access_log)
        self.status: int | None = None  # once it has been sent
        self._send = send
        self._bodyless = scope["method"] == "HEAD"
        self._streamed = False

    async def json(self, value: Any, status: int = 200) -> None:
        """A whole answer of ours."""
        await self.whole(status, [("content-type", JSON)], msgspec.json.encode(value))

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer."""
        await self._start(status, [*headers, ("content-length", str(len(body)))])
        await self._body(b"" if self._bodyless else body, more=False)

    async def stream(self, status: int, headers: Headers) -> None:
        """The beginning of a stream of events."""
        self._streamed = True
        await self._start(status, [*headers, ("cache-control", "no-cache")])

    async def comment(self, text: str) -> None:
        """An event that says nothing to the client but that it is not forgotten. The stream begins
        with it if it has not begun."""
        if not self.started:
            await self.stream(200, [("content-type", EVENT_STREAM)])
        await self.piece(f": {text}\n\n".encode())

    @property
    def started(self) -> bool:
        """Whether status and headers have been sent."""
        return self.status is not None

    async def piece(self, data: bytes) -> None:
        """Some bytes of the stream."""
        await self._body(data, more=True)

    async def event(self, body: bytes) -> None:
        """The end of a stream which had begun before the answer, an error, was there."""
        data = b"".join(b"data: " + line + b"\n" for line in body.splitlines())
        await self._body(data + b"\n", more=False)

    async def end(self) -> None:
        """The clean end of the stream."""
        await self._body(b"", more=False)

    async def error(self, error: RoundhouseError) -> None:
        """An error answer, or the event that ends a stream which had begun.

        Raises: the error, where neither can be sent: the connection must break, since a clean
        end would make a part look like the whole.
        """
        if not self.started:
            await self.whole(error.status, headers_from_error(error), body_from_error(error))
        elif self._streamed:
            await self._body(event_from_error(error), more=False)
        else:
            raise error

    async def _start(self, status: int, headers: Headers) -> None:
        self.status = status
        message: Message = {"type": "http.response.start", "status": status}
        await self._send({**message, "headers": encoded(headers)})

    async def _body(self, data: bytes, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
