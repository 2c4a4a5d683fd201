"""What a router keeps for each model that it has served, counted by tracemalloc in this process.

The cluster is simulated: applications that all run, each with an echo in this process. What Serve
keeps for each handle is not in it; `many_models` sees that.
"""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from starlette.types import Message

from deployments.config import EchoConfig
from deployments.exchange import Exchange, Item, ModelCard
from deployments.progress import Progress
from deployments.testing import EchoBackend
from serve_app.directory import Application
from serve_app.router import RouterApp


@dataclass(frozen=True, slots=True)
class Kept:
    """What a router keeps for so many models, all of them served twice."""

    num_models: int
    kept_bytes: int


class Echoes:
    """A cluster of echoes that all run."""

    def __init__(self, names: Sequence[str]) -> None:
        self._echo = EchoBackend("echo", EchoConfig())
        self._found = [Application(name, "echo", "running", 0.0, {"RUNNING": 1}) for name in names]

    async def applications(self) -> Sequence[Application]:
        return self._found

    async def card(self, application: Application) -> ModelCard:
        return ModelCard("echo", (application.name,))

    async def wake(self, application: Application) -> None:
        raise NotImplementedError

    def num_queued(self, application: Application) -> int:
        return 0

    def doubt(self, name: str) -> None:
        pass

    async def loading(self) -> Mapping[str, Sequence[Progress]]:
        return {}

    def exchange(self, application: Application, request: Exchange) -> AsyncGenerator[Item, None]:
        return self._echo.exchange(request)


def measure(counts: Sequence[int]) -> list[Kept]:
    return [asyncio.run(_kept(count)) for count in counts]


async def _kept(num_models: int) -> Kept:
    names = [f"m{i}" for i in range(num_models)]
    cluster = Echoes(names)
    await _served(RouterApp(Echoes(["first"])), ["first"])  # what is made once, for all
    gc.collect()
    tracemalloc.start()
    router = RouterApp(cluster)
    for _ in range(2):
        await router.directory.refresh()
        await _served(router, names)
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Kept(num_models, kept)


async def _served(router: RouterApp, names: Sequence[str]) -> None:
    await router.directory.refresh()
    app = router.asgi()
    for name in names:
        request = {"model": name, "messages": [{"role": "user", "content": "one two"}]}
        messages: list[Message] = [{"type": "http.request", "body": msgspec.json.encode(request)}]
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions"}

        async def receive(messages: list[Message] = messages) -> Message:
            if not messages:
                await asyncio.Event().wait()
            return messages.pop()

        async def send(message: Message) -> None:
            if message.get("status", 200) != 200:
                raise RuntimeError(f"status {message['status']}")

        await app({**scope, "headers": headers}, receive, send)
