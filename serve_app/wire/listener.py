"""Where a router is found by replicas, and which it has found."""

import asyncio
import logging
import secrets
from collections import defaultdict
from hmac import compare_digest

from serve_app.wire.frames import SECRET_BYTES, Ticket
from serve_app.wire.pool import Pool
from serve_app.wire.replica_wire import ReplicaWire

logger = logging.getLogger(__name__)


class Listener:
    """Listens on one port. Only who knows its secret, which tickets carry, is listened to."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._wires: set[ReplicaWire] = set()
        self._pools: defaultdict[str, Pool] = defaultdict(Pool)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens on a free port; where that cannot be, there are no tickets, and so no wires."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._accept, self._host, 0)
        except OSError as exc:
            logger.warning("requests go by Serve's handle, slower: cannot listen: %s", exc)

    def stop(self) -> None:
        """Cuts every wire; there will be no more."""
        if self._server is not None:
            self._server.close()
        for wire in list(self._wires):
            wire.cut()

    @property
    def ticket(self) -> Ticket | None:
        """What a replica must know to connect."""
        if self._server is None:
            return None
        return Ticket(self._host, self._server.sockets[0].getsockname()[1], self._secret)

    def pool(self, application: str) -> Pool:
        """The replicas of an application, none if none has joined."""
        return self._pools[application]

    def keep(self, applications: set[str]) -> None:
        """Forgets the pools of all others, except while they are in use."""
        for name in self._pools.keys() - applications:
            if not self._pools[name].wires and not self._pools[name].num_waiting:
                del self._pools[name]

    def knows(self, secret: bytes) -> bool:
        return compare_digest(secret, self._secret)

    def joined(self, wire: ReplicaWire) -> None:
        pool = self._pools[wire.member.application]
        pool.wires.append(wire)
        pool.update()

    def changed(self, wire: ReplicaWire) -> None:
        self._pools[wire.member.application].update()

    def lost(self, wire: ReplicaWire) -> None:
        self._wires.discard(wire)
        pool = self._pools[wire.member.application]
        if wire in pool.wires:
            pool.wires.remove(wire)
        pool.update()

    def _accept(self) -> ReplicaWire:
        wire = ReplicaWire(self)
        self._wires.add(wire)
        return wire
