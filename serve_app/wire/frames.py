"""What goes over the wire: frames, each a piece of one request or answer, many of them in turn.

Nothing that could run code is read from the wire: bodies are bytes, the rest is msgpack.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

import msgspec

from deployments.exchange import Exchange, Head, Item, Tail

PREFIX = struct.Struct("<IBI")  # stream, kind, payload's length
MAX_PAYLOAD_BYTES = 1 << 20
SECRET_BYTES = 16
T = TypeVar("T")
CONNECTION = 0  # the stream of frames that are about no request


class Kind(IntEnum):
    """Of a frame. Who speaks first after the secret is the replica, with JOIN."""

    # Replica to router
    HEAD = 0
    BYTES = 1
    TAIL = 2
    END = 3  # the answer is whole
    FAILED = 4  # the answer ends here, with this error
    REFUSED = 5  # the request was not taken: another replica may
    JOIN = 6  # who the replica is
    LEAVE = 7  # no more requests, please; answers go on
    PONG = 8
    # Router to replica
    REQUEST = 9  # its last piece, and mostly its only one
    PART = 10
    FORGET = 11  # the client has left
    PAUSE = 12
    RESUME = 13
    PING = 14
    QUEUE = 15  # how many requests wait for a replica


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where a router listens, and what to say there first."""

    host: str
    port: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class Member:
    """A replica, as it introduces itself. `limit` is how many requests it takes at a time."""

    application: str
    limit: int


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
    if kind == Kind.BYTES:
        return payload
    if kind == Kind.HEAD:
        return decoded(payload, Head)
    return decoded(payload, Tail)


def request_frames(stream: int, request: Exchange) -> bytes:
    """A request as frames that follow each other."""
    data = msgspec.msgpack.encode(request)
    last = (len(data) - 1) // MAX_PAYLOAD_BYTES * MAX_PAYLOAD_BYTES
    parts = (
        frame(stream, Kind.PART, data[start : start + MAX_PAYLOAD_BYTES])
        for start in range(0, last, MAX_PAYLOAD_BYTES)
    )
    return b"".join((*parts, frame(stream, Kind.REQUEST, data[last:])))


def decoded(payload: bytes, kind: type[T]) -> T:
    """Raises: BrokenFrame for what is none."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
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
            if length > MAX_PAYLOAD_BYTES or kind > Kind.QUEUE:
                raise BrokenFrame(f"a frame of kind {kind} and {length} bytes")
            end = at + size + length
            if end > len(data):
                break
            yield stream, kind, data[at + size : end]
            at = end
        self._rest = data[at:]
