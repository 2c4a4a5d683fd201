"""One answer as it leaves a replica."""

import asyncio
from collections.abc import Callable, Iterable

from deployments.errors import RoundhouseError
from deployments.exchange import Item
from serve_app.wire.failure import payload_of
from serve_app.wire.frames import Kind, frame, frames_of

TURN_BYTES = 1 << 18  # what one turn of the event loop may gather before the others' turn comes


class Outbox:
    """Sends without waiting, unless the router holds this answer back, or the wire is full."""

    def __init__(
        self, stream: int, write: Callable[[bytes], int], wire_free: asyncio.Event
    ) -> None:
        self._stream = stream
        self._write = write
        self._wire_free = wire_free
        self._free = asyncio.Event()
        self._free.set()

    async def send(self, items: Iterable[Item]) -> None:
        """Puts the items on the wire."""
        if not self._wire_free.is_set():
            await self._wire_free.wait()
        if not self._free.is_set():
            await self._free.wait()
        num_waiting = 0
        for item in items:
            for piece in frames_of(self._stream, item):
                num_waiting = self._write(piece)
        if num_waiting > TURN_BYTES:
            await asyncio.sleep(0)

    def end(self) -> None:
        """The answer is whole."""
        self._write(frame(self._stream, Kind.END))

    def fail(self, error: RoundhouseError) -> None:
        """It ends here, with an error."""
        self._write(frame(self._stream, Kind.FAILED, payload_of(error)))

    def refuse(self) -> None:
        """There is none: the request was not taken."""
        self._write(frame(self._stream, Kind.REFUSED))

    def hold(self, pause: bool) -> None:
        """The router does not want more of this answer now, or wants it again."""
        if pause:
            self._free.clear()
        else:
            self._free.set()
