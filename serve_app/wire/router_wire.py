"""A replica's end of its connection to one router.

What several answers have to say in one turn of the event loop leaves in one piece: the engine ends
a step for all of them at once.
"""

import asyncio
import time
from typing import cast

import msgspec

from deployments.exchange import Exchange
from serve_app.wire.desk import Desk
from serve_app.wire.frames import (
    CONNECTION,
    BrokenFrame,
    Frames,
    Kind,
    Member,
    Ticket,
    decoded,
    frame,
)
from serve_app.wire.keepalive import keep_alive
from serve_app.wire.outbox import Outbox

CONNECT_TIMEOUT_S = 1.0
RETRY_S = 30.0  # a router that could not be reached is not tried every time it asks


class RouterWire(asyncio.Protocol):
    """Connects at once. A wire that is lost is not mended, but another may be made."""

    def __init__(self, ticket: Ticket, application: str, desk: Desk) -> None:
        self._ticket = ticket
        self._member = Member(application, desk.limit)
        self._desk = desk
        self._connecting = asyncio.get_running_loop().create_task(self._connect())
        self._transport: asyncio.Transport | None = None
        self._stale_at_s: float | None = None  # None while it is good
        self._frames = Frames()
        self._parts: dict[int, list[bytes]] = {}
        self._answers: dict[int, tuple[asyncio.Task[None], Outbox]] = {}
        self._out: list[bytes] = []
        self._num_out_bytes = 0
        self._free = asyncio.Event()
        self._free.set()
        self.num_waiting = 0

    @property
    def is_stale(self) -> bool:
        """Whether it is time to try another."""
        return self._stale_at_s is not None and time.monotonic() >= self._stale_at_s

    async def connected(self) -> bool:
        """Whether the wire is there, waiting for one that is on its way."""
        if not self._connecting.done():
            # A call that is given up must not end what others wait for too.
            await asyncio.shield(self._connecting)
        return self._stale_at_s is None

    def leave(self) -> None:
        """Asks the router for no more requests."""
        self._write(frame(CONNECTION, Kind.LEAVE))

    def close(self) -> None:
        """Hangs up once all that was written has left."""
        self._connecting.cancel()
        if self._transport is not None:
            self._flush()
            self._transport.close()

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: self, self._ticket.host, self._ticket.port)
        except OSError:  # TimeoutError and ConnectionError are of its kind
            self._stale_at_s = time.monotonic() + RETRY_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not of asyncio's kind
        keep_alive(transport)
        self._write(self._ticket.secret)
        self._write(frame(CONNECTION, Kind.JOIN, msgspec.msgpack.encode(self._member)))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stale_at_s is None:
            self._stale_at_s = time.monotonic()
        self.num_waiting = 0
        self._free.set()
        for task, _ in self._answers.values():
            task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            for stream, kind, payload in self._frames.cut(data):
                self._take(stream, kind, payload)
        except BrokenFrame:
            self._hang_up()

    def pause_writing(self) -> None:
        self._free.clear()

    def resume_writing(self) -> None:
        self._free.set()

    def _take(self, stream: int, kind: int, payload: bytes) -> None:
        if kind == Kind.REQUEST:
            self._open(stream, b"".join((*self._parts.pop(stream, ()), payload)))
        elif kind == Kind.PART:
            self._parts.setdefault(stream, []).append(payload)
        elif kind == Kind.PING:
            self._write(frame(CONNECTION, Kind.PONG))
        elif kind == Kind.QUEUE:
            self.num_waiting = int.from_bytes(payload, "little")
        elif stream in self._answers:
            task, outbox = self._answers[stream]
            if kind == Kind.FORGET:
                task.cancel()
            else:
                outbox.hold(kind == Kind.PAUSE)

    def _open(self, stream: int, data: bytes) -> None:
        outbox = Outbox(stream, self._write, self._free)
        task = self._desk.take(decoded(data, Exchange), outbox)
        if task is not None:
            self._answers[stream] = task, outbox
            task.add_done_callback(lambda _: self._answers.pop(stream))

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> int:
        """The bytes that wait for this turn's end."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)
        self._num_out_bytes += len(data)
        return self._num_out_bytes

    def _flush(self) -> None:
        data, self._out, self._num_out_bytes = b"".join(self._out), [], 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
