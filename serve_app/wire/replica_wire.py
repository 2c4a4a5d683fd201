"""The router's end of a connection: requests go out to one replica, its answers come in."""

import asyncio
from functools import partial
from typing import Protocol, cast

from deployments.errors import ReplicaDied
from deployments.exchange import Exchange
from serve_app.wire.failure import error_of
from serve_app.wire.frames import (
    CONNECTION,
    SECRET_BYTES,
    BrokenFrame,
    Frames,
    Kind,
    Member,
    decoded,
    frame,
    item_of,
    request_frames,
)
from serve_app.wire.inbox import Inbox
from serve_app.wire.keepalive import keep_alive

JOIN_TIMEOUT_S = 5.0
MAX_STREAMS = 1 << 32
# While it owes answers a replica is looked at so often. One that has said nothing since the last
# look is asked whether it is there; one that was silent at so many in turn is thought to hang.
LOOK_S = 1.0
HUNG_LOOKS = 4
FULL_S = 0.05  # one that refused is full by others' requests: it is spared for a moment


class Refused(Exception):
    """The replica did not take the request; it may be sent elsewhere."""


class Owner(Protocol):
    """Who keeps the wires of one router."""

    def knows(self, secret: bytes) -> bool: ...
    def joined(self, wire: "ReplicaWire") -> None: ...
    def changed(self, wire: "ReplicaWire") -> None: ...
    def lost(self, wire: "ReplicaWire") -> None: ...


class ReplicaWire(asyncio.Protocol):
    """A replica says the secret first and then who it is; then it is given requests."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._frames = Frames()
        self._secret: bytes | None = b""
        self._inboxes: dict[int, Inbox] = {}
        self._last_stream = CONNECTION
        self._out: list[bytes] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._silent = False
        self._num_silent = 0
        self._full = False
        self._leaving = False
        self.member = Member("", 0)
        self.num_reserved = 0

    @property
    def num_open(self) -> int:
        """Requests that it has, or is about to be given."""
        return len(self._inboxes) + self.num_reserved

    @property
    def is_usable(self) -> bool:
        """Whether it may be given requests, now or when it has fewer. One that is being cut may
        not: what it is given is refused at once, and would come back to it for ever."""
        gone = self._leaving or self._transport.is_closing()
        return not gone and self._num_silent < HUNG_LOOKS

    @property
    def is_free(self) -> bool:
        """Whether it may be given one now."""
        return self.is_usable and not self._full and self.num_open < self.member.limit

    def open(self, request: Exchange) -> Inbox:
        """Sends a request; its answer comes into the inbox, which is to be closed."""
        stream = self._new_stream()
        inbox = Inbox(partial(self._tell, stream), partial(self._closed, stream))
        self._inboxes[stream] = inbox
        if self._transport.is_closing():
            inbox.end(Refused())
        self._write(request_frames(stream, request))
        if self._alarm is None:
            self._silent = False
            self._alarm = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        return inbox

    def tell_queue(self, num_waiting: int) -> None:
        """Says how many requests wait for a replica, which counts for autoscaling."""
        self._write(frame(CONNECTION, Kind.QUEUE, num_waiting.to_bytes(4, "little")))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not of asyncio's kind
        keep_alive(transport)
        self._alarm = asyncio.get_running_loop().call_later(JOIN_TIMEOUT_S, self.cut)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._leaving = True
        for inbox in self._inboxes.values():
            inbox.end(ReplicaDied("The model's replica died.", retry_after_s=1))
        self._owner.lost(self)

    def data_received(self, data: bytes) -> None:
        if self._secret is not None:
            data = self._greeted(self._secret + data)
        try:
            for stream, kind, payload in self._frames.cut(data):
                self._take(stream, kind, payload)
        except BrokenFrame:
            self.cut()
        self._silent = False
        if self._num_silent:
            self._num_silent = 0
            self._owner.changed(self)

    def cut(self) -> None:
        """Breaks it off, and every answer that comes by it."""
        self._transport.abort()

    def _greeted(self, data: bytes) -> bytes:
        """What comes after the secret; nothing until that is known to be right."""
        if len(data) < SECRET_BYTES:
            self._secret = data
            return b""
        if not self._owner.knows(data[:SECRET_BYTES]):
            self.cut()
            return b""
        self._secret = None
        return data[SECRET_BYTES:]

    def _take(self, stream: int, kind: int, payload: bytes) -> None:
        if stream == CONNECTION:
            self._hear_of(kind, payload)
            return
        inbox = self._inboxes.get(stream)
        if inbox is None:
            return  # its client has left
        if kind <= Kind.TAIL:
            inbox.put(item_of(kind, payload))
        elif kind == Kind.END:
            inbox.end()
        elif kind == Kind.FAILED:
            inbox.end(error_of(payload))
        elif kind == Kind.REFUSED:
            self._refused(inbox)

    def _hear_of(self, kind: int, payload: bytes) -> None:
        if kind == Kind.JOIN:
            self.member = decoded(payload, Member)
            self._disarm()
            self._owner.joined(self)
        elif kind == Kind.LEAVE:
            self._leaving = True
            self._owner.changed(self)

    def _refused(self, inbox: Inbox) -> None:
        self._full = True
        asyncio.get_running_loop().call_later(FULL_S, self._may_have_room)
        inbox.end(Refused())

    def _may_have_room(self) -> None:
        self._full = False
        self._owner.changed(self)

    def _closed(self, stream: int, inbox: Inbox) -> None:
        if self._inboxes.pop(stream, None) is not None:
            self._owner.changed(self)

    def _new_stream(self) -> int:
        while True:
            self._last_stream = (self._last_stream + 1) % MAX_STREAMS
            if self._last_stream != CONNECTION and self._last_stream not in self._inboxes:
                return self._last_stream

    def _tell(self, stream: int, kind: Kind) -> None:
        self._write(frame(stream, kind))

    def _write(self, data: bytes) -> None:
        """What is said in one turn of the event loop leaves in one piece."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        data, self._out = b"".join(self._out), []
        if not self._transport.is_closing():
            self._transport.write(data)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look(self) -> None:
        self._alarm = None
        if not self._inboxes:
            return
        self._num_silent = self._num_silent + 1 if self._silent else 0
        self._silent = True
        if self._num_silent == 1:
            self._tell(CONNECTION, Kind.PING)
        elif self._num_silent == HUNG_LOOKS:
            self._hang()
        self._alarm = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _hang(self) -> None:
        """What it has begun may go on some day; the rest is given back."""
        for stream, inbox in self._inboxes.items():
            if not inbox.begun:
                self._tell(stream, Kind.FORGET)  # should it live after all
                inbox.end(ReplicaDied("The model's replica does not answer.", retry_after_s=1))
        self._owner.changed(self)
