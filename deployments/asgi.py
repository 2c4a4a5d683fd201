"""An ASGI app called in memory: no socket, no HTTP parsing.

It carries one POST and streams the answer. It does not interpret the answer; `inspect` lets the
caller look at each piece before it is joined with others.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from deployments.exchange import JSON, Head
from deployments.pipe import Pipe

LEAVE_TIMEOUT_S = 5.0

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Message, Receive, Send], Awaitable[None]]


class AppCall:
    """One call of an app. `answer` may be iterated once; closing it ends the app's work."""

    def __init__(
        self, path: str, body: bytes, request_id: str, headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        self._path = path
        self._body: bytes | None = body
        self._headers = (*headers, ("x-request-id", request_id))
        self._head: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._pipe = Pipe()
        self._left = asyncio.Event()

    async def answer(
        self, app: ASGIApp, inspect: Callable[[bytes], None]
    ) -> AsyncGenerator[Head | bytes, None]:
        """The app's answer: its head, then its bytes.

        Raises: what the app raises, and what `inspect` raises on a piece.
        """
        task = asyncio.create_task(self._run(app, inspect))
        try:
            yield await self._head
            while piece := await self._pipe.read():
                yield piece
        finally:
            await self._leave(task)

    async def _leave(self, task: asyncio.Task[None]) -> None:
        """Tells the app that the client has left, and ends it if it does not end by itself.

        Cancelling at once would not do: an app that answers in tasks of its own, as vLLM's does,
        would leave them at work.
        """
        self._left.set()
        try:
            await asyncio.wait([task], timeout=LEAVE_TIMEOUT_S)
        finally:
            task.cancel()

    async def _run(self, app: ASGIApp, inspect: Callable[[bytes], None]) -> None:
        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._head.set_result(_head(message))
            elif message["type"] == "http.response.body":
                piece = message.get("body", b"")
                inspect(piece)
                self._pipe.write(piece)
                if not message.get("more_body", False):
                    self._pipe.end()

        try:
            await app(self._scope(), self._receive, send)
            self._finish(RuntimeError("the app ended without an answer"))
        except Exception as exc:  # noqa: BLE001 - the edge of foreign code: passed to the reader
            self._finish(exc)

    def _finish(self, error: Exception) -> None:
        """Ends whatever has not ended; after a complete answer this changes nothing."""
        if not self._head.done():
            self._head.set_exception(error)
        self._pipe.end(error)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    def _scope(self) -> Message:
        length = str(len(self._body or b"")).encode()
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": self._path,
            "raw_path": self._path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [
                (b"host", b"localhost"),
                (b"content-type", JSON.encode()),
                (b"content-length", length),
                *((name.encode(), value.encode()) for name, value in self._headers),
            ],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 80),
            "state": {},
        }


def _head(message: Message) -> Head:
    headers = {k.lower(): v for k, v in message.get("headers", [])}
    content_type = headers.get(b"content-type", JSON.encode()).decode("latin-1")
    return Head(status=message["status"], content_type=content_type)
