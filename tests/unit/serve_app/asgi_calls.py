"""An ASGI app called without a server: what it was given, and what it sent."""

import asyncio
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Scope


@dataclass(slots=True)
class Sent:
    """The messages of one call, and the answer they make."""

    messages: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {k.decode(): v.decode() for k, v in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    async def send(self, message: Message) -> None:
        self.messages.append(message)


def http_scope(*headers: tuple[bytes, bytes], method: str = "GET", path: str = "/health") -> Scope:
    return {"type": "http", "method": method, "path": path, "headers": list(headers)}


async def call(app: ASGIApp, scope: Scope) -> Sent:
    """Calls an app with an empty body; the client stays."""
    sent = Sent()
    messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    await app(scope, receive, sent.send)
    return sent
