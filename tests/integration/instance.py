"""A real `serve run`, or `roundhouse serve`, on free ports, and what a test needs to know of it.

Every process it starts, Ray's and vLLM's included, inherits a marker in its environment, by which
the replicas are found, and everything is ended, by process id.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import yaml
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
from ray.serve.schema import ServeDeploySchema

from benchmarks.stack import free_port
from serve_app.launch.plan import SIDE_PORTS

ROOT = Path(__file__).resolve().parents[2]
MARKER = "ROUNDHOUSE_TEST_RUN"
START_S = 240


def shipped_config() -> dict[str, Any]:
    """serve_config.yaml as it is shipped."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    return config


class Instance:
    """One Serve instance: its URL, its processes, and its configuration, changed by `deploy`."""

    command: tuple[str, ...] = (str(Path(sys.executable).with_name("serve")), "run")

    def __init__(self, folder: Path, config: dict[str, Any], environment: dict[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._run_id = uuid.uuid4().hex
        self._file = folder / "serve_config.yaml"
        ports = (*SIDE_PORTS, "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT")
        self._environment = {
            **os.environ,
            **environment,
            **{name: str(free_port()) for name in ports},
            MARKER: self._run_id,
            "RAY_ADDRESS": "local",
            "SPT_NOENV": "1",  # else setproctitle overwrites the marker
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        }
        del self._environment["RAY_AUTH_MODE"]  # as in a user's shell
        # Serve's own proxy, to which HAProxy sends what it knows no router for.
        fallback_port = self._environment["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"]
        self.fallback_url = f"http://127.0.0.1:{fallback_port}"
        self.config = config
        self.config["http_options"]["port"] = self.port
        self._file.write_text(yaml.safe_dump(config, sort_keys=False))
        self._log = (folder / "serve.log").open("wb")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Runs the command until every application is ready."""
        self._process = subprocess.Popen(
            [*self.command, str(self._file)],
            env=self._environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.wait(lambda: self.get("/ready")[0] == 200, START_S)

    def interrupt(self) -> int:
        """Ends it as Ctrl-C does; the exit status. Raises: subprocess.TimeoutExpired."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(60)

    def stop(self) -> None:
        """Ctrl-C, and then whatever Ray leaves over, HAProxy for one, is ended by force."""
        assert self._process is not None
        try:
            self.interrupt()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        _, left = psutil.wait_procs(self.processes(), timeout=2)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=10)
        self._log.close()

    def deploy(self, dashboard_url: str) -> None:
        """What `serve deploy` does with the configuration as it is now, without its imports, which
        take two seconds each time; `tests.nodes` runs the command itself."""
        config = ServeDeploySchema.model_validate(self.config).model_dump(exclude_unset=True)
        ServeSubmissionClient(dashboard_url).deploy_applications(config)

    @property
    def log(self) -> str:
        """What the instance has printed so far, its replicas included."""
        return Path(self._log.name).read_text(errors="replace")

    @property
    def logs(self) -> Path:
        """Where Ray and Serve keep every log of the run."""
        for process in self.processes():
            for argument in process.info["cmdline"] or ():
                if argument.startswith("--session-dir="):
                    return Path(argument.partition("=")[2]) / "logs"
        raise AssertionError("no process says where the session is")

    def written(self) -> dict[str, str]:
        """All that the run has logged so far, by file."""
        files = [file for file in self.logs.rglob("*") if file.is_file()]
        assert len(files) > 10
        return {str(f): f.read_text(errors="replace") for f in files} | {"stderr": self.log}

    def application(self, name: str) -> dict[str, Any] | None:
        """What /-/models says of an application."""
        _, body = self.get("/-/models")
        rows = body["applications"] if isinstance(body, dict) else []
        return next((row for row in rows if row["application"] == name), None)

    def state(self, name: str) -> str | None:
        row = self.application(name)
        return row["state"] if row else None

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a GET; (0, None) while nobody answers."""
        request = urllib.request.Request(self.url + path)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, None
        except (OSError, ValueError):
            return 0, None

    def wait(self, condition: Any, limit_s: float = 180) -> None:
        """Polls until the condition holds. Raises: AssertionError, with the log's end."""
        pause = Event()
        for _ in range(int(limit_s / 0.1)):
            if condition():
                return
            if self._process is not None and self._process.poll() is not None:
                break
            pause.wait(0.1)
        raise AssertionError(self.log[-4000:])

    def pids(self, title: str) -> set[int]:
        """Those of its processes whose titles begin so."""
        titles = {p.pid: " ".join(p.info["cmdline"] or ()) for p in self.processes()}
        return {pid for pid, found in titles.items() if found.startswith(title)}

    def processes(self) -> list[psutil.Process]:
        """Every process of this instance that still runs."""
        return [p for p in psutil.process_iter(["cmdline"]) if self._is_ours(p)]

    def replicas(self) -> dict[str, int]:
        """The process id of each replica by `application:deployment`."""
        titles = {p.pid: " ".join(p.info["cmdline"] or ()) for p in self.processes()}
        prefix = "ray::ServeReplica:"
        return {
            title.removeprefix(prefix).split(".")[0].strip(): pid
            for pid, title in titles.items()
            if title.startswith(prefix)
        }

    def gcs_address(self) -> str:
        """Where this instance's Ray is, for `ray.init`."""
        for process in self.processes():
            for argument in process.info["cmdline"] or ():
                if argument.startswith("--gcs-address="):
                    return argument.partition("=")[2]
        raise AssertionError("no process says where the GCS is")

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE
            return alive and process.environ().get(MARKER) == self._run_id
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False
