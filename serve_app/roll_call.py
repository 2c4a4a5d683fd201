"""Which replicas have yet to give this router a wire: called together when there are some, and more
and more seldom as long as nothing comes of it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from deployments.errors import BackendError
from serve_app.directory import RUNNING_REPLICAS, Application
from serve_app.wire.frames import Ticket
from serve_app.wire.listener import Listener

logger = logging.getLogger("roundhouse")

MAX_PAUSE_S = 60.0

Call = Callable[[Application, Ticket], Awaitable[None]]


@dataclass(slots=True)
class Called:
    """An application's replicas as they were when they were last called, and when that was."""

    seen: tuple[float, int, int]
    at_s: float
    pause_s: float = 1.0


class RollCall:
    """Held at each look at the cluster."""

    def __init__(self, listener: Listener, call: Call) -> None:
        self._listener = listener
        self._call = call
        self._called: dict[str, Called] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self, applications: Sequence[Application]) -> None:
        """Calls those of the applications that have replicas without a wire."""
        ticket = self._listener.ticket
        names = {application.name for application in applications}
        self._listener.keep(names)
        self._called = {name: called for name, called in self._called.items() if name in names}
        for application in applications:
            if ticket is not None and self._is_due(application):
                task = asyncio.create_task(self._hear(application, ticket))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _is_due(self, application: Application) -> bool:
        num_running = sum(application.replicas.get(name, 0) for name in RUNNING_REPLICAS)
        num_wires = self._listener.pool(application.name).num_usable
        if num_running <= num_wires:
            return False
        now, seen = asyncio.get_running_loop().time(), (application.version, num_running, num_wires)
        called = self._called.get(application.name)
        if called is None or called.seen != seen:
            self._called[application.name] = Called(seen, now)
            return True
        if now < called.at_s + called.pause_s:
            return False
        called.at_s, called.pause_s = now, min(2 * called.pause_s, MAX_PAUSE_S)
        return True

    async def _hear(self, application: Application, ticket: Ticket) -> None:
        try:
            await self._call(application, ticket)
        except BackendError as exc:
            logger.warning("no wire to application %s yet: %s", application.name, exc.message)
