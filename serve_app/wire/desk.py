"""Where a replica takes requests from the wires of all its routers, so many at a time."""

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from deployments.errors import BackendUnavailable, RoundhouseError
from deployments.exchange import Exchange, Item
from serve_app.error_response import log_unforeseen
from serve_app.wire.outbox import Outbox

Bundles = AsyncGenerator[Sequence[Item], None]


class Desk:
    """Runs each request in a task of its own, which frees the backend's slot when it is cancelled.

    What its answer raises is sent after it, and what nobody foresaw is logged here, once.
    """

    def __init__(self, answer: Callable[[Exchange], Bundles], limit: int) -> None:
        self._answer = answer
        self.limit = limit
        self.num_open = 0
        self._open = True
        self._all_done = asyncio.Event()
        self._all_done.set()
        # Not that of the call by which a router made itself known: it would be logged for each.
        self._context = contextvars.copy_context()

    def take(self, request: Exchange, outbox: Outbox) -> asyncio.Task[None] | None:
        """The task that answers; None for a request that is refused."""
        if not self._open or self.num_open >= self.limit:
            outbox.refuse()
            return None
        self.num_open += 1
        self._all_done.clear()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(request, outbox), context=self._context.copy())
        task.add_done_callback(self._done)
        return task

    def close(self) -> None:
        """Takes no more requests."""
        self._open = False

    async def empty(self) -> None:
        """Returns when every request has been answered."""
        await self._all_done.wait()

    def _done(self, task: asyncio.Task[None]) -> None:
        self.num_open -= 1
        if not self.num_open:
            self._all_done.set()

    async def _run(self, request: Exchange, outbox: Outbox) -> None:
        try:
            async with aclosing(self._answer(request)) as bundles:
                async for bundle in bundles:
                    await outbox.send(bundle)
        except RoundhouseError as exc:
            outbox.fail(exc)
        except Exception as exc:  # noqa: BLE001 - the edge of the backend: logged here, once
            log_unforeseen(exc, request.request_id)
            outbox.fail(RoundhouseError())
        except asyncio.CancelledError:
            # By the router, who does not listen any more; or by the backend, and then it does.
            outbox.fail(BackendUnavailable("The model gave the request up.", retry_after_s=1))
            raise
        else:
            outbox.end()
