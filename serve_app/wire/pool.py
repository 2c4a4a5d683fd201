"""The replicas of one application that a router has wires to, and the requests that wait for one.

Requests wait in the order in which they came, as many as one replica takes at a time; then the
queue is full.
"""

import asyncio
from collections import deque

from deployments.errors import BackendOverloaded
from deployments.exchange import Exchange
from serve_app.wire.inbox import Inbox
from serve_app.wire.replica_wire import ReplicaWire

TELL_QUEUE_S = 0.5

Waiter = asyncio.Future[ReplicaWire | None]


class Pool:
    """Gives each request to the replica that has the fewest of this router's."""

    def __init__(self) -> None:
        self.wires: list[ReplicaWire] = []
        self._waiting: deque[Waiter] = deque()
        self._teller: asyncio.TimerHandle | None = None

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_usable(self) -> int:
        """Replicas that may be given requests, now or when they have fewer."""
        return sum(wire.is_usable for wire in self.wires)

    async def open(self, request: Exchange) -> Inbox | None:
        """Sends a request once a replica has room; None where no replica can be reached by wire.

        Raises: BackendOverloaded, if the queue is full.
        """
        wire = self._free() if not self._waiting else None
        if wire is None:
            if not (usable := [wire for wire in self.wires if wire.is_usable]):
                return None
            if len(self._waiting) >= max(wire.member.limit for wire in usable):
                raise BackendOverloaded("The model's queue is full.", retry_after_s=1)
            wire = await self._wait()
            if wire is None:
                return None
            wire.num_reserved -= 1
        return wire.open(request)

    def update(self) -> None:
        """Gives what has become free to those who wait; if nothing ever will, tells them."""
        while self._waiting and (wire := self._free()):
            if not (waiter := self._waiting.popleft()).done():
                wire.num_reserved += 1
                waiter.set_result(wire)
        if self._waiting and not any(wire.is_usable for wire in self.wires):
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiting.clear()

    def _free(self) -> ReplicaWire | None:
        free = [wire for wire in self.wires if wire.is_free]
        return min(free, key=lambda wire: wire.num_open, default=None)

    async def _wait(self) -> ReplicaWire | None:
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if self._teller is None:
            self._tell_queue()
        try:
            return await waiter
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def _give_up(self, waiter: Waiter) -> None:
        """The client left: its place, or the replica it was just given, goes to the next."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif not waiter.cancelled() and (wire := waiter.result()) is not None:
            wire.num_reserved -= 1
            self.update()

    def _tell_queue(self) -> None:
        """One replica is told how many wait here, for autoscaling, until nobody does."""
        self._teller = None
        if self.wires:
            self.wires[0].tell_queue(len(self._waiting))
        if self._waiting:
            self._teller = asyncio.get_running_loop().call_later(TELL_QUEUE_S, self._tell_queue)
