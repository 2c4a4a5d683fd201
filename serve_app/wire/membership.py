"""A replica's wires: one to each router that has asked for it."""

import asyncio

from serve_app.wire.desk import Desk
from serve_app.wire.frames import Ticket
from serve_app.wire.router_wire import RouterWire

# What routers sent before they heard that the replica leaves arrives within this time.
LAST_WORDS_S = 0.5


class Membership:
    """Joins routers as they call, and leaves them all together."""

    def __init__(self, application: str, desk: Desk) -> None:
        self._application = application
        self._desk = desk
        self._wires: dict[Ticket, RouterWire] = {}

    @property
    def num_waiting(self) -> int:
        """Requests that wait in the routers for a replica, as far as this one was told."""
        return sum(wire.num_waiting for wire in self._wires.values())

    async def join(self, ticket: Ticket) -> bool:
        """Makes the wire to a router, if there is none. Whether there is one now."""
        wire = self._wires.get(ticket)
        if wire is None or wire.is_stale:
            self._wires = {key: kept for key, kept in self._wires.items() if not kept.is_stale}
            wire = self._wires[ticket] = RouterWire(ticket, self._application, self._desk)
        return await wire.connected()

    async def leave(self) -> None:
        """Takes no more requests, ends those that it has, and hangs up."""
        self._desk.close()
        for wire in self._wires.values():
            wire.leave()
        if self._wires:
            await asyncio.sleep(LAST_WORDS_S)
        await self._desk.empty()
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()
