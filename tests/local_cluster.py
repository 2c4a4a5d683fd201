"""Backends in this process as the router's cluster: the real router and backends, without Ray."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

import uvicorn

from deployments.errors import RoundhouseError
from deployments.exchange import Backend, Exchange, Item, ModelCard
from deployments.progress import Progress
from serve_app.answering import told
from serve_app.directory import Application
from serve_app.router import RouterApp
from tests.polling import until


class LocalCluster:
    """A `serve_app.directory.Cluster` of started backends; `states` overrides what it says of one.

    `exchanges` records what was asked of which application, `wakes` which were woken; one that is
    cold runs once `awake` is set.
    """

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self.backends = dict(backends)
        self.states: dict[str, Application] = {}
        self.progress: dict[str, list[Progress]] = {}
        self.exchanges: list[tuple[str, Exchange]] = []
        self.wakes: list[str] = []
        self.queued: dict[str, int] = {}
        self.awake = asyncio.Event()
        self.doubts: list[str] = []

    async def applications(self) -> Sequence[Application]:
        return [self._application(name) for name in self.backends]

    def _application(self, name: str) -> Application:
        kind = self.backends[name].card().backend
        return self.states.get(name) or Application(name, kind, "running", time.time())

    async def card(self, application: Application) -> ModelCard:
        return self.backends[application.name].card()

    async def wake(self, application: Application) -> None:
        self.wakes.append(application.name)
        await self.awake.wait()
        self.states.pop(application.name, None)

    def doubt(self, name: str) -> None:
        self.doubts.append(name)

    async def loading(self) -> Mapping[str, Sequence[Progress]]:
        return self.progress

    def num_queued(self, application: Application) -> int:
        return self.queued.get(application.name, 0)

    async def exchange(
        self, application: Application, request: Exchange
    ) -> AsyncGenerator[Item, None]:
        self.exchanges.append((application.name, request))
        try:
            backend = self.backends[application.name]
            async with contextlib.aclosing(told(backend, request)) as items:
                async for item in items:
                    yield item
        except RoundhouseError:
            raise
        except Exception:  # noqa: BLE001 - as serve_app.app does at the replica's edge
            raise RoundhouseError from None


@contextlib.asynccontextmanager
async def serving(app: RouterApp) -> AsyncIterator[str]:
    """The router behind a real HTTP server on a free port of loopback; yields its URL."""
    config = uvicorn.Config(app.asgi(), host="127.0.0.1", port=0, log_level="warning")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    await app.directory.refresh()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
