"""One answer as it arrives at the router, kept until its client takes it."""

import asyncio
from collections.abc import Callable

from deployments.exchange import Item
from serve_app.wire.frames import Kind

HIGH_WATER_BYTES = 1 << 18


class Inbox:
    """Holds the replica back while its client is slow; answers beside it on the wire go on."""

    def __init__(self, tell: Callable[[Kind], None], leave: Callable[["Inbox"], None]) -> None:
        self._tell = tell
        self._leave = leave
        self._items: list[Item] = []
        self._num_bytes = 0
        self._paused = False
        self._error: Exception | None = None
        self._ready = asyncio.Event()
        self.begun = False
        self.over = False

    async def read(self) -> list[Item]:
        """All that has come since the last time, waiting for some; empty at the end.

        Raises: what ended the answer, once what came before it is read.
        """
        if not self._ready.is_set():
            await self._ready.wait()
        items, self._items = self._items, []
        self._num_bytes = 0
        self._hold(False)
        if not self.over:
            self._ready.clear()
        if not items and self._error is not None:
            raise self._error
        return joined(items) if len(items) > 1 else items

    def put(self, item: Item) -> None:
        """Takes what has come."""
        self.begun = True
        self._items.append(item)
        self._ready.set()
        if isinstance(item, bytes):
            self._num_bytes += len(item)
            self._hold(self._num_bytes > HIGH_WATER_BYTES)

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes, for this reason if it is not the right one. The first word counts."""
        if not self.over:
            self.over, self._error = True, error
            self._ready.set()

    def close(self) -> None:
        """Nobody reads on: the replica is told, if it has not ended by itself."""
        if not self.over:
            self._tell(Kind.FORGET)
            self.over = True
        self._leave(self)

    def _hold(self, pause: bool) -> None:
        if pause != self._paused and not self.over:
            self._paused = pause
            self._tell(Kind.PAUSE if pause else Kind.RESUME)


def joined(items: list[Item]) -> list[Item]:
    """The same with bytes that follow each other as one: a client that was busy gets them so."""
    pieces: list[Item] = []
    for item in items:
        if pieces and isinstance(item, bytes) and isinstance(pieces[-1], bytes):
            pieces[-1] += item
        else:
            pieces.append(item)
    return pieces
