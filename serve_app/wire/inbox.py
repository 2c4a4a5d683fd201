"""One answer as it arrives at the router, kept until its client takes it."""

import asyncio
from typing import Protocol

from deployments.errors import BackendUnavailable
from deployments.exchange import Item
from serve_app.wire.frames import Kind, Ticket, frame

HIGH_WATER_BYTES = 1 << 18


class Wire(Protocol):
    """The connection that an answer comes by."""

    def write(self, data: bytes) -> None: ...


class Inbox:
    """Holds the replica back while its client is slow; answers beside it on the wire go on."""

    def __init__(self, ticket: Ticket | None) -> None:
        self.ticket = ticket
        self.wire: Wire | None = None
        self._items: list[Item] = []
        self._num_bytes = 0
        self._paused = False
        self._over = False
        self._error: BackendUnavailable | None = None
        self._ready = asyncio.Event()

    def bind(self, wire: Wire | None) -> None:
        """Says on which wire the answer comes; None for one that is lost already."""
        self.wire = wire
        if wire is None:
            self.lost()

    async def read(self) -> list[Item]:
        """All that has come since the last time, waiting for some; empty at the end.

        Raises: BackendUnavailable once the wire is lost and what came before it is read.
        """
        await self._ready.wait()
        items, self._items = self._items, []
        self._num_bytes = 0
        self._hold(False)
        if not self._over:
            self._ready.clear()
        if not items and self._error is not None:
            raise self._error
        return joined(items)

    def put(self, item: Item) -> None:
        """Takes what has come."""
        self._items.append(item)
        self._ready.set()
        if isinstance(item, bytes):
            self._num_bytes += len(item)
            self._hold(self._num_bytes > HIGH_WATER_BYTES)

    def end(self) -> None:
        """Nothing more comes."""
        self._over = True
        self._ready.set()

    def lost(self) -> None:
        """Nothing more comes, though something was to; after the end this changes nothing."""
        if not self._over:
            self._error = BackendUnavailable("The model's replica died.", retry_after_s=1)
            self.end()

    def close(self) -> None:
        """Nobody reads on."""
        self._hold(False)

    def _hold(self, pause: bool) -> None:
        if pause != self._paused and self.wire is not None and self.ticket is not None:
            self._paused = pause
            self.wire.write(frame(self.ticket.stream, Kind.PAUSE if pause else Kind.RESUME))


def joined(items: list[Item]) -> list[Item]:
    """The same with bytes that follow each other as one: a client that was busy gets them so."""
    if len(items) < 2:
        return items
    pieces: list[Item] = []
    for item in items:
        if pieces and isinstance(item, bytes) and isinstance(pieces[-1], bytes):
            pieces[-1] += item
        else:
            pieces.append(item)
    return pieces
