"""A server under test: a command, and every process that comes of it.

Its processes, Ray's, HAProxy's and vLLM's included, are found again by a mark in their environment,
and ended by their ids. No other process is touched.
"""

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psutil

from benchmarks.polling import until
from serve_app.launch import run

ROOT = Path(__file__).resolve().parents[1]
START_LIMIT_S = 240
READY_LIMIT_S = 5  # a first answer may import things
STOP_LIMIT_S = 20
PATIENCE_S = 5
LOG_TAIL_CHARS = 3000

# Nothing is fetched, and nothing is reported to anybody.
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(slots=True)
class Stack:
    """A server and all of its processes. `ready_path` answers 200 once the model can be asked, on
    `ready_port` if that is not the server's own."""

    name: str
    port: int
    ready_path: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=run.new_run)
    ready_port: int | None = None
    _child: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=run.environment(self.mark, {**os.environ, **OFFLINE, **self.environment}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Raises: RuntimeError, with the end of the log, if the stack ends or takes too long."""
        with suppress(TimeoutError):
            until(lambda: self._ended() or self._ready(), START_LIMIT_S, 0.2)
            if not self._ended():
                return
        tail = self.log.read_text(errors="replace")[-LOG_TAIL_CHARS:]
        raise RuntimeError(f"{self.name} did not start:\n{tail}")

    def stop(self) -> None:
        """Ends it as Ctrl-C does, and then whatever is left of it."""
        if self._child is None:
            return
        self._child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(STOP_LIMIT_S)
        left = run.end(self.mark, PATIENCE_S)
        self._child.poll()
        if left:
            print(f"{self.name}: cannot end {[process.pid for process in left]}", file=sys.stderr)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Its processes cost nothing meanwhile. Not for long: Ray counts missed heartbeats."""
        processes = self.processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def processes(self) -> list[psutil.Process]:
        return run.members(self.mark)

    def _ready(self) -> bool:
        return answers(self.ready_port or self.port, self.ready_path, READY_LIMIT_S)

    def _ended(self) -> bool:
        return self._child is not None and self._child.poll() is not None


@contextmanager
def running(stacks: Sequence[Stack]) -> Iterator[None]:
    """All of them up and ready; whatever happens, none is left behind."""
    with ExitStack() as stops:
        for stack in stacks:
            stops.callback(stack.stop)
            stack.start()
        for stack in stacks:
            stack.wait_until_ready()
        yield


def answers(port: int, path: str, limit_s: float = 1) -> bool:
    """Whether a GET on loopback is answered with 200 in time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limit_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# Above those of Ray's workers, below those of Serve's replicas (30000 on) and those that the system
# gives whoever asks for none: what is free now is free when the server has started. Processes that
# ask at a time begin at different places.
PORTS = range(20_000, 30_000)
_NUMBERS = count(os.getpid() * 100)


def free_port() -> int:
    """One that is given nobody else meanwhile."""
    for number in _NUMBERS:
        port = PORTS[number % len(PORTS)]
        with suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError
