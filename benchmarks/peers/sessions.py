"""One load on one contender, from the client's side: over HTTP, or straight to the handle."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol

import msgspec
import psutil
import uvloop

from benchmarks.load import Client, Load, Run
from benchmarks.stack import LOG_TAIL_CHARS, PATIENCE_S, ROOT, Stack
from serve_app.launch import run


class Session(Protocol):
    """A client that is ready to ask."""

    def warm_up(self) -> None: ...

    def measure(self) -> Run: ...


class HttpSession:
    """The clients are in this process."""

    def __init__(self, runner: asyncio.Runner, client: Client) -> None:
        self._runner = runner
        self._client = client

    def warm_up(self) -> None:
        self._runner.run(self._client.warm_up())

    def measure(self) -> Run:
        return self._runner.run(self._client.measure())


@contextmanager
def over_http(url: str, load: Load) -> Iterator[Session]:
    client = Client(url, load)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(client.__aenter__())
        try:
            yield HttpSession(runner, client)
        finally:
            runner.run(client.__aexit__())


class HandleDriver:
    """The clients are in a process of the stack's cluster (handle_driver.py)."""

    def __init__(self, orders: IO[bytes], answers: IO[bytes]) -> None:
        self._orders = orders
        self._answers = answers

    @contextmanager
    def session(self, load: Load) -> Iterator[Session]:
        yield HandleSession(self, load)

    def order(self, load: Load, measured: bool) -> bytes:
        self._orders.write(msgspec.json.encode({"load": load, "measured": measured}) + b"\n")
        self._orders.flush()
        return self.answer()

    def answer(self) -> bytes:
        """The next line of JSON; Ray may write others. Raises: RuntimeError at the end."""
        for line in self._answers:
            if line.startswith(b"{"):
                return line
        raise RuntimeError("the driver of the handle has ended")


class HandleSession:
    """One load, ordered from the driver."""

    def __init__(self, driver: HandleDriver, load: Load) -> None:
        self._driver = driver
        self._load = load

    def warm_up(self) -> None:
        self._driver.order(self._load, measured=False)

    def measure(self) -> Run:
        return msgspec.json.decode(self._driver.order(self._load, measured=True), type=Run)


@contextmanager
def handle_driver(stack: Stack) -> Iterator[HandleDriver]:
    """Joins the stack's cluster, and carries its mark: it is paused and counted with it.

    Raises: RuntimeError, with the end of its log, if that does not work.
    """
    command = [sys.executable, "-m", "benchmarks.peers.handle_driver", gcs_address(stack)]
    log = stack.log.with_name("handle_driver.log")
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=run.environment(stack.mark, {**os.environ, "RAY_AUTH_MODE": "token"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        driver = HandleDriver(process.stdin, process.stdout)
        try:
            driver.answer()
        except RuntimeError as error:
            raise RuntimeError(f"{error}:\n{log.read_text()[-LOG_TAIL_CHARS:]}") from None
        yield driver
    finally:
        process.stdin.close()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def gcs_address(stack: Stack) -> str:
    """Where the stack's Ray can be joined. Raises: RuntimeError if it has none."""
    flag = "--gcs-address="
    for process in stack.processes():
        try:
            for argument in process.cmdline():
                if argument.startswith(flag):
                    return argument.removeprefix(flag)
        except psutil.Error:
            continue
    raise RuntimeError(f"{stack.name} has no Ray")
