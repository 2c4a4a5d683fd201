"""Before a start: what stands in the way is named, with its pid and what to do about it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.launch import plan as plans
from serve_app.launch import run
from serve_app.launch.preflight import problems
from serve_app.launch.welcome import tool
from tests.unit.serve_app.launch_children import named, plan_at, read_until, running


@pytest.fixture(autouse=True)
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray looks for a cluster of this machine where the test says, and finds none; what runs of
    others have left here does not count."""
    monkeypatch.setattr(run, "MARK", f"ROUNDHOUSE_TEST_RUN_{os.getpid()}")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def test_nothing_in_the_way() -> None:
    """A free port on a machine without Ray is no problem."""
    assert list(problems(plan_at(0))) == []


def test_a_taken_port_names_its_holder(listener: socket.socket) -> None:
    """The message says which port, which setting, which process, and how to end it."""
    (problem,) = problems(plan_at(port_of(listener)))
    assert f"port {port_of(listener)} (http_options.port)" in problem
    assert f"(pid {os.getpid()})" in problem
    assert f"`kill {os.getpid()}`" in problem


def test_a_taken_side_port_names_its_variable(listener: socket.socket) -> None:
    """The ports that HAProxy takes besides are looked at too, unless the first is taken."""
    variable = "RAY_SERVE_HAPROXY_METRICS_PORT"
    (problem,) = problems(replace(plan_at(0), side_ports={variable: port_of(listener)}))
    assert f"port {port_of(listener)} ({variable})" in problem
    side_ports = {variable: port_of(listener)}
    (problem,) = problems(replace(plan_at(port_of(listener)), side_ports=side_ports))
    assert "http_options.port" in problem


def test_a_host_of_another_machine() -> None:
    """A host that is not ours is told with the system's reason."""
    (problem,) = problems(replace(plan_at(0), host="192.0.2.1"))
    assert problem.startswith("http_options.port: cannot listen on 192.0.2.1:0: Cannot assign")


def test_an_haproxy_that_was_left_over(listener: socket.socket, tmp_path: Path) -> None:
    """It outlives Ray, so nobody looks for it: the message says what it is."""
    haproxy = named("haproxy", "sleep", tmp_path)
    with running([haproxy, "60"], keep=(listener.fileno(),)) as process:
        port = port_of(listener)
        listener.close()
        (problem,) = problems(plan_at(port))
    assert "an HAProxy that Ray Serve has left over" in problem
    assert f"`kill {process.pid}`" in problem


def test_a_cluster_that_serves(listener: socket.socket, tmp_path: Path) -> None:
    """An HAProxy below a living raylet belongs to a cluster: it is not to be killed by itself."""
    named("haproxy", "sleep", tmp_path)
    raylet, script = named("raylet", "bash", tmp_path), "echo up; ./haproxy 60; true"
    with running(["env", "-C", tmp_path, raylet, "-c", script], keep=(listener.fileno(),)) as top:
        read_until(top, "up")
        port = port_of(listener)
        listener.close()
        (problem,) = problems(plan_at(port))
    assert "a Ray cluster that is already running here" in problem
    assert f"`kill -INT {os.getpid()}`" in problem
    assert f"`{tool('deploy serve_config.yaml')}`" in problem


def test_a_cluster_that_would_be_joined(listener: socket.socket, tmp_path: Path) -> None:
    """After `ray start`, `serve run` would join that cluster, and not end with it."""
    address = f"127.0.0.1:{port_of(listener)}"
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text(address)
    (problem,) = problems(plan_at(0))
    assert f"a Ray cluster is already running here, at {address}" in problem
    assert "`ray stop`" in problem


def test_an_address_that_is_stale(listener: socket.socket, tmp_path: Path) -> None:
    """The file of a cluster that is gone does not matter."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text(f"127.0.0.1:{port_of(listener)}")
    listener.close()
    assert list(problems(plan_at(0))) == []


def test_a_cluster_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """RAY_ADDRESS is told by its name, since unsetting it is what helps."""
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    (problem,) = problems(plan_at(0))
    assert "RAY_ADDRESS names a Ray cluster, 10.0.0.1:6379" in problem


def test_what_a_killed_launcher_left() -> None:
    """Processes whose launcher was killed are listed for one `kill`."""
    launcher = subprocess.Popen([sys.executable, "-c", ""])
    launcher.wait()
    with running(["sleep", "60"], env={run.MARK: f"{launcher.pid}-gone"}) as process:
        (problem,) = problems(plan_at(0))
    assert "left over from a run whose launcher was killed" in problem
    assert str(process.pid) in problem.partition("`kill ")[2]


@pytest.mark.parametrize("keys", ["", " , "])
def test_keys_that_are_not_set(keys: str) -> None:
    """A router that asks for keys and has none would not run, and nothing would say why."""
    (problem,) = problems(replace(plan_at(0), api_keys_env="KEYS", api_keys=keys))
    assert problem.startswith("api_keys_env names KEYS, which is not set or empty")


def test_a_plan_from_the_shipped_file() -> None:
    """The plan is what the file says: HAProxy's ports count because the file turns HAProxy on."""
    plan = plans.read(Path(__file__).parents[3] / "serve_config.yaml")
    assert (plan.host, plan.port, plan.url) == ("127.0.0.1", 8000, "http://127.0.0.1:8000")
    assert plan.applications == ("demo", "demo-hf", "api")
    assert set(plan.side_ports) == {
        "RAY_SERVE_HAPROXY_METRICS_PORT",
        "RAY_SERVE_HAPROXY_STATS_PORT",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    }


def test_a_plan_of_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports, keys and HAProxy are as the file says, wherever it says it."""
    file = tmp_path / "config.yaml"
    file.write_text(
        "http_options: {host: '::1', port: 81}\n"
        "controller_options: {runtime_env: {env_vars: {RAY_SERVE_ENABLE_HA_PROXY: '0'}}}\n"
        "applications:\n"
        "- {name: r, import_path: serve_app.app:router, args: {api_keys_env: KEYS}}\n"
        "- {name: m, import_path: serve_app.app:model, args: {backend: echo}}\n"
    )
    monkeypatch.setenv("KEYS", "first,second")
    plan = plans.read(file)
    assert (plan.url, plan.api_keys_env, plan.applications) == ("http://[::1]:81", "KEYS", ("m",))
    assert (plan.side_ports, plan.api_keys) == ({}, "first,second")
    assert "second" not in repr(plan)
