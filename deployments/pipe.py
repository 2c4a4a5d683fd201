"""A one-way pipe of bytes between two tasks of one event loop.

The reader gets the first piece at once; what is written while it is busy comes as one piece. No
timer is involved, so nothing waits that could leave.
"""

import asyncio


class Pipe:
    """Written to without waiting, read in order, ended once: cleanly or with an error."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._ready = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None

    def write(self, piece: bytes) -> None:
        """Adds a piece; pieces after the end are dropped."""
        if piece and not self._ended:
            self._pieces.append(piece)
            self._ready.set()

    def end(self, error: BaseException | None = None) -> None:
        """Ends the pipe: the reader gets what is left, then the end, or `error`."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._ready.set()

    async def read(self) -> bytes:
        """All that has been written since the last read, waiting for the first piece; b"" at the
        end.

        Raises: the error that the pipe was ended with, once everything before it is read.
        """
        await self._ready.wait()
        if self._pieces:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            if not self._ended:
                self._ready.clear()
            return data
        if self._error is not None:
            raise self._error
        return b""
