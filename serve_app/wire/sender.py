"""A replica's end: a wire to each router that asks, made when it first asks, and kept."""

from collections.abc import AsyncIterator, Sequence

from deployments.exchange import Item
from serve_app.wire.frames import Ticket
from serve_app.wire.outgoing import Address, OutgoingWire

NO_WIRE = b""


class Sender:
    """The wires of one replica."""

    def __init__(self) -> None:
        self._wires: dict[Address, OutgoingWire] = {}

    async def carry(
        self, ticket: Ticket | None, bundles: AsyncIterator[Sequence[Item]]
    ) -> AsyncIterator[bytes | Sequence[Item]]:
        """Yields the name of the wire that the answer comes by, before it begins, and puts the
        answer on the wire; where there is no wire, `NO_WIRE` and then the answer itself.

        Raises: what `bundles` raises, ConnectionError.
        """
        wire = await self._wire_to(ticket) if ticket else None
        if wire is None or ticket is None:
            yield NO_WIRE
            async for bundle in bundles:
                yield bundle
            return
        with wire.outbox(ticket.stream) as outbox:
            yield wire.wire_id
            try:
                async for bundle in bundles:
                    await outbox.send(bundle)
            finally:
                outbox.end()

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
