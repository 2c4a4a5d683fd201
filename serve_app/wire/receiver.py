"""The router's end: listens for replicas, and sorts what they send by the answers it belongs to."""

import asyncio
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from hmac import compare_digest
from typing import cast

from serve_app.wire.frames import (
    HELLO_BYTES,
    SECRET_BYTES,
    WELCOME,
    BrokenFrame,
    Frames,
    Kind,
    Ticket,
    item_of,
)
from serve_app.wire.inbox import Inbox

HELLO_TIMEOUT_S = 5.0
MAX_STREAMS = 1 << 32

logger = logging.getLogger(__name__)


class Receiver:
    """Listens on one port. Only who knows its secret, which tickets carry, is listened to."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._wires: dict[bytes, IncomingWire] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._next_stream = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens on a free port; where that cannot be, there are no tickets, and so no wires."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: IncomingWire(self), self._host, 0)
        except OSError as exc:
            logger.warning("answers go by Serve's handle, slower: cannot listen: %s", exc)

    def stop(self) -> None:
        """Cuts every wire; there will be no more."""
        if self._server is not None:
            self._server.close()
        for wire in list(self._wires.values()):
            wire.cut()

    @property
    def num_open(self) -> int:
        """Answers that are being received."""
        return len(self._inboxes)

    @contextmanager
    def inbox(self) -> Iterator[Inbox]:
        """Room for one answer; what comes for it after the block is dropped."""
        stream = self._next_stream = (self._next_stream + 1) % MAX_STREAMS
        inbox = self._inboxes[stream] = Inbox(self._ticket(stream))
        try:
            yield inbox
        finally:
            inbox.close()
            del self._inboxes[stream]

    def _ticket(self, stream: int) -> Ticket | None:
        if self._server is None:
            return None
        port = self._server.sockets[0].getsockname()[1]
        return Ticket(self._host, port, self._secret, stream)

    def bind(self, inbox: Inbox, wire_id: bytes) -> None:
        """The answer comes from the replica that calls its wire so."""
        inbox.bind(self._wires.get(wire_id))

    def knows(self, secret: bytes) -> bool:
        return compare_digest(secret, self._secret)

    def connected(self, wire_id: bytes, wire: "IncomingWire") -> None:
        self._wires[wire_id] = wire

    def lost(self, wire_id: bytes) -> None:
        """Every answer that came this way is broken off."""
        wire = self._wires.pop(wire_id, None)
        for inbox in self._inboxes.values():
            if inbox.wire is wire:
                inbox.lost()

    def take(self, stream: int, kind: int, payload: bytes) -> None:
        """A frame that has come; one for an answer that nobody waits for is dropped."""
        inbox = self._inboxes.get(stream)
        if inbox is None:
            return
        if kind == Kind.END:
            inbox.end()
        else:
            inbox.put(item_of(kind, payload))


class IncomingWire(asyncio.Protocol):
    """One replica's connection. It says the secret and its name first, and is welcomed."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._frames = Frames()
        self._hello = b""
        self._wire_id: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not of asyncio's kind
        self._deadline = asyncio.get_running_loop().call_later(HELLO_TIMEOUT_S, self.cut)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        if self._wire_id is not None:
            self._receiver.lost(self._wire_id)

    def data_received(self, data: bytes) -> None:
        if self._wire_id is None:
            self._greet(data)
            return
        try:
            for stream, kind, payload in self._frames.cut(data):
                self._receiver.take(stream, kind, payload)
        except BrokenFrame:
            self.cut()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def cut(self) -> None:
        self._transport.abort()

    def _greet(self, data: bytes) -> None:
        self._hello += data
        if len(self._hello) < HELLO_BYTES:
            return
        if len(self._hello) > HELLO_BYTES or not self._receiver.knows(self._hello[:SECRET_BYTES]):
            self.cut()
            return
        self._deadline.cancel()
        self._wire_id = self._hello[SECRET_BYTES:]
        self._receiver.connected(self._wire_id, self)
        self.write(WELCOME)
