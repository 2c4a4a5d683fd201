"""Server-sent events out of a stream of bytes that may be cut anywhere.

An upstream can break off inside an event; what is said after that must not be read as its rest.
"""

MAX_HELD_BYTES = 1 << 20
ENDS = (b"\n\n", b"\r\n\r\n")


class WholeEvents:
    """Lets bytes through up to the end of the last whole event, unchanged and in order.

    An event that is longer than MAX_HELD_BYTES goes through in parts: what is held is bounded.
    """

    def __init__(self) -> None:
        self._held = bytearray()

    def add(self, piece: bytes) -> bytes:
        """What is whole now; often the piece itself."""
        if not self._held and piece.endswith(ENDS):
            return piece
        self._held += piece
        end = max(self._held.rfind(mark) + len(mark) if mark in self._held else 0 for mark in ENDS)
        if not end and len(self._held) > MAX_HELD_BYTES:
            end = len(self._held)
        whole = bytes(self._held[:end])
        del self._held[:end]
        return whole

    def flush(self) -> bytes:
        """What is left at the end of a stream that ended well."""
        return bytes(self._held)


class WholeBody:
    """The same for a body that is not a stream: nothing is whole before the end."""

    def __init__(self) -> None:
        self._held = bytearray()

    def add(self, piece: bytes) -> bytes:
        """Keeps a piece; nothing is whole yet."""
        self._held += piece
        return b""

    def flush(self) -> bytes:
        """The body."""
        return bytes(self._held)
