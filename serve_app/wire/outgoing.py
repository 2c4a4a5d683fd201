"""A replica's connection to one router.

What several answers have to say in one turn of the event loop leaves in one piece: the engine ends
a step for all of them at once.
"""

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from serve_app.wire.frames import WELCOME, WIRE_ID_BYTES, BrokenFrame, Frames, Kind
from serve_app.wire.outbox import Outbox

CONNECT_TIMEOUT_S = 1.0
RETRY_S = 30.0  # a router that could not be reached is not tried for every request

Address = tuple[str, int, bytes]  # host, port, secret


class OutgoingWire(asyncio.Protocol):
    """Connects at once. A wire that is lost is not mended, but another may be made."""

    def __init__(self, address: Address) -> None:
        loop = asyncio.get_running_loop()
        self._address = address
        self.wire_id = secrets.token_bytes(WIRE_ID_BYTES)
        self._welcome: asyncio.Future[None] = loop.create_future()
        self._connecting = loop.create_task(self._connect())
        self._transport: asyncio.Transport | None = None
        self._stale_at_s: float | None = None  # None while it is good
        self._frames = Frames()
        self._out: list[bytes] = []
        self._num_out_bytes = 0
        self._outboxes: dict[int, Outbox] = {}
        self._free = asyncio.Event()
        self._free.set()

    @property
    def is_stale(self) -> bool:
        """Whether it is time to try another."""
        return self._stale_at_s is not None and time.monotonic() >= self._stale_at_s

    async def connected(self) -> bool:
        """Whether the wire is there, waiting for one that is on its way."""
        if not self._connecting.done():
            # A request that is given up must not end what others wait for too.
            await asyncio.shield(self._connecting)
        return self._stale_at_s is None

    @contextmanager
    def outbox(self, stream: int) -> Iterator[Outbox]:
        """The way out for one answer."""
        outbox = self._outboxes[stream] = Outbox(stream, self._write, self._free)
        try:
            yield outbox
        finally:
            del self._outboxes[stream]

    def close(self) -> None:
        self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def _connect(self) -> None:
        host, port, secret = self._address
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: self, host, port)
                self._write(secret + self.wire_id)
                await self._welcome
        except OSError:  # TimeoutError and ConnectionError are of its kind
            self._stale_at_s = time.monotonic() + RETRY_S
            if self._transport is not None:
                self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not of asyncio's kind

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stale_at_s is None:
            self._stale_at_s = time.monotonic()
        if not self._welcome.done():
            self._welcome.set_exception(ConnectionResetError("the router hung up"))
        self._free.set()
        for outbox in self._outboxes.values():
            outbox.lost()

    def data_received(self, data: bytes) -> None:
        if not self._welcome.done():
            self._welcome.set_result(None)
            data = data.removeprefix(WELCOME)
        try:
            for stream, kind, _ in self._frames.cut(data):
                if outbox := self._outboxes.get(stream):
                    outbox.hold(kind == Kind.PAUSE)
        except BrokenFrame:
            self.close()

    def pause_writing(self) -> None:
        self._free.clear()

    def resume_writing(self) -> None:
        self._free.set()

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
