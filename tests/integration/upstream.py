"""A real OpenAI-compatible server as the upstream of API models: our router before an echo."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from deployments import backends
from deployments.exchange import Backend
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving


@contextlib.contextmanager
def upstream(*models: str) -> Iterator[tuple[str, list[Backend]]]:
    """Serves an EchoBackend for each of these names from a thread; yields its base URL and them."""
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    found: list[str] = []
    config = backends.configure({"backend": "echo"})
    echoes = {model: backends.build(model, config) for model in models}

    async def run() -> None:
        async with serving(RouterApp(LocalCluster(echoes))) as url:
            found.append(url)
            ready.set()
            await stopped.wait()

    stopped = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert ready.wait(60)
    try:
        yield f"{found[0]}/v1", list(echoes.values())
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(60)
        loop.close()
