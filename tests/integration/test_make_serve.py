"""`serve` with real Ray: from nothing to an answer, and after Ctrl-C nothing is left."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from serve_app.launch.plan import SIDE_PORTS
from serve_app.launch.run import MARK
from tests.integration.conftest import echo_application
from tests.integration.instance import free_port, shipped_config
from tests.unit.serve_app.launch_children import read_until

SNIPPET = "In Python:\n\n"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def launcher(tmp_path: Path, port: int) -> Iterator["subprocess.Popen[str]"]:
    """`python -m serve_app serve` of a router and two echoes, on ports of its own."""
    config = shipped_config()
    config["http_options"]["port"] = port
    config["applications"] = [config["applications"][0], *map(echo_application, ("demo", "two"))]
    config["applications"][0]["deployments"][0]["user_config"] = {}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    ports = (*SIDE_PORTS, "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT")
    with (
        (tmp_path / "ray.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "serve_app", "serve", str(file)],
            env={**os.environ, **{name: str(free_port()) for name in ports}},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)


def members(launcher: "subprocess.Popen[str]") -> dict[int, str]:
    """The living processes of the launcher's run: their names by pid."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK, "").startswith(f"{launcher.pid}-"):
                found[process.pid] = process.name()
        except psutil.Error:
            continue
    return found


def test_ctrl_c_leaves_nothing(launcher: "subprocess.Popen[str]", port: int) -> None:
    """The printed snippet gets an answer; Ctrl-C ends Ray, replicas and HAProxy, and frees the
    port."""
    told = read_until(launcher, "Ctrl-C stops everything.")
    assert "demo (echo): running after" in told
    assert "two (echo): running after" in told
    snippet = told.partition(SNIPPET)[2].partition("\n\n")[0]
    answer = subprocess.run([sys.executable, "-c", snippet], capture_output=True, check=True)
    assert answer.stdout.strip() == b"What is 7 + 5?"  # the echo's answer
    assert {"raylet", "gcs_server", "haproxy"} <= set(members(launcher).values())
    launcher.send_signal(signal.SIGINT)
    output, _ = launcher.communicate(timeout=60)
    assert output.endswith("all stopped\n")
    assert launcher.returncode == 0
    assert members(launcher) == {}
    with socket.create_server(("127.0.0.1", port)):
        pass
