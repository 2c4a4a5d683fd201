"""What goes over the wire: frames, each a piece of one answer, many answers in turn.

Nothing that could run code is read from the wire: heads and tails are msgpack, the rest is bytes.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from deployments.exchange import Head, Item, Tail

PREFIX = struct.Struct("<IBI")  # stream, kind, payload's length
MAX_PAYLOAD_BYTES = 1 << 20
SECRET_BYTES = 16
WIRE_ID_BYTES = 16
HELLO_BYTES = SECRET_BYTES + WIRE_ID_BYTES
WELCOME = b"\x06"


class Kind(IntEnum):
    """Replica to router: HEAD, BYTES, TAIL, END. Router to replica: PAUSE, RESUME, FORGET."""

    HEAD = 0
    BYTES = 1
    TAIL = 2
    END = 3  # of this stream's frames; how it ended is said by the handle
    PAUSE = 4
    RESUME = 5


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where an answer is to be sent, and under which number."""

    host: str
    port: int
    secret: bytes
    stream: int


class BrokenFrame(Exception):
    """The other end does not speak as this one does."""


def frame(stream: int, kind: Kind, payload: bytes = b"") -> bytes:
    return PREFIX.pack(stream, kind, len(payload)) + payload


def frames_of(stream: int, item: Item) -> Iterator[bytes]:
    """An item as frames: one, but for bytes that are too many for one."""
    if isinstance(item, bytes):
        for start in range(0, len(item), MAX_PAYLOAD_BYTES):
            yield frame(stream, Kind.BYTES, item[start : start + MAX_PAYLOAD_BYTES])
    else:
        kind = Kind.HEAD if isinstance(item, Head) else Kind.TAIL
        yield frame(stream, kind, msgspec.msgpack.encode(item))


def item_of(kind: int, payload: bytes) -> Item:
    """Raises: BrokenFrame for what is no item."""
    try:
        if kind == Kind.BYTES:
            return payload
        if kind == Kind.HEAD:
            return msgspec.msgpack.decode(payload, type=Head)
        return msgspec.msgpack.decode(payload, type=Tail)
    except msgspec.DecodeError as exc:
        raise BrokenFrame(str(exc)) from exc


class Frames:
    """Cuts what arrives into frames, whatever the pieces it arrives in."""

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Stream, kind and payload of each frame that is whole now. Raises: BrokenFrame."""
        data = self._rest + data if self._rest else data
        at, size = 0, PREFIX.size
        while len(data) - at >= size:
            stream, kind, length = PREFIX.unpack_from(data, at)
            if length > MAX_PAYLOAD_BYTES or kind > Kind.RESUME:
                raise BrokenFrame(f"a frame of kind {kind} and {length} bytes")
            end = at + size + length
            if end > len(data):
                break
            yield stream, kind, data[at + size : end]
            at = end
        self._rest = data[at:]
