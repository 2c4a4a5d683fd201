"""A replica's end: a wire to each router that asks, made when it first asks, and kept."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from deployments.exchange import Item
from serve_app.wire.frames import Ticket
from serve_app.wire.outbox import Outbox
from serve_app.wire.outgoing import Address, OutgoingWire

NO_WIRE = b""


class Sender:
    """The wires of one replica."""

    def __init__(self) -> None:
        self._wires: dict[Address, OutgoingWire] = {}

    async def carry(
        self, ticket: Ticket | None, bundles: AsyncGenerator[Sequence[Item], None]
    ) -> AsyncGenerator[bytes | Sequence[Item], None]:
        """Puts the answer on a wire, and yields the wire's name meanwhile; where there is no wire,
        `NO_WIRE` and then the answer itself. Closing it closes `bundles`.

        Raises: what `bundles` raises, ConnectionError.
        """
        wire = await self._wire_to(ticket) if ticket else None
        if wire is None or ticket is None:
            async with aclosing(bundles):
                yield NO_WIRE
                async for bundle in bundles:
                    yield bundle
            return
        with wire.outbox(ticket.stream) as outbox:
            # Begun before the name is on its way: the slower handle does not hold up the answer.
            sending = asyncio.create_task(send(bundles, outbox))
            try:
                yield wire.wire_id
                await sending
            finally:
                sending.cancel()
                # Its error, if any, has been raised above, or nobody is there to be told.
                await asyncio.gather(sending, return_exceptions=True)

    def close(self) -> None:
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()

    async def _wire_to(self, ticket: Ticket) -> OutgoingWire | None:
        address = (ticket.host, ticket.port, ticket.secret)
        wire = self._wires.get(address)
        if wire is None or wire.is_stale:
            self._wires = {key: kept for key, kept in self._wires.items() if not kept.is_stale}
            wire = self._wires[address] = OutgoingWire(address)
        return wire if await wire.connected() else None


async def send(bundles: AsyncGenerator[Sequence[Item], None], outbox: Outbox) -> None:
    """Sends a whole answer, and then its end, whatever that is."""
    try:
        async with aclosing(bundles):
            async for bundle in bundles:
                await outbox.send(bundle)
    finally:
        outbox.end()
