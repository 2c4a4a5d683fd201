"""`roundhouse drain`, on nodes of which one is about to go."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from tests.cluster.simulated import Simulated, cpu_node, simulated

WORDS = " ".join(f"w{number}" for number in range(20))
MODEL: dict[str, Any] = {
    "name": "model",
    "route_prefix": None,
    "import_path": "serve_app.app:model",
    "args": {"backend": "echo", "num_cpus": 1},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Simulated]:
    """A router on one node, a model on one of two."""
    router = {"name": "router", "route_prefix": "/", "import_path": "serve_app.app:router"}
    with simulated(cpu_node(2), cpu_node(2)) as running:
        running.deploy([{**router, "args": {}}, MODEL])
        running.wait(lambda: running.rows().get("model", {}).get("state") == "running")
        yield running


def node_of_model(cluster: Simulated) -> str:
    details = cluster.details()["applications"]["model"]["deployments"]["echo"]["replicas"]
    (node,) = {str(each["node_id"]) for each in details if each["state"] == "RUNNING"}
    return node


def drain(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, "-m", "serve_app", "drain", "--port", "1", *arguments]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_node_that_is_not_named_is_not_guessed(cluster: Simulated) -> None:
    """Where several nodes have this machine's address, none is drained."""
    refused = drain("--limit-s", "1")
    assert refused.returncode == 1
    assert "say --node-id" in refused.stderr


def test_a_node_is_emptied_without_cutting_an_answer(cluster: Simulated) -> None:
    """The replica starts elsewhere, the one here ends its requests, then the command returns."""
    before = node_of_model(cluster)
    answers: list[tuple[int, Any]] = []
    message = {"role": "user", "content": f"[[sleep=0.4]]{WORDS}"}
    body = {"model": "model", "messages": [message]}
    asking = threading.Thread(
        target=lambda: answers.append(cluster.request("/v1/chat/completions", body))
    )
    asking.start()
    drained = drain("--limit-s", "90", "--node-id", before)
    asking.join()
    assert (drained.returncode, drained.stderr) == (0, "")
    ((status, answer),) = answers
    assert (status, answer["choices"][0]["message"]["content"]) == (200, WORDS)
    assert node_of_model(cluster) != before
    message["content"] = "hi"
    assert cluster.request("/v1/chat/completions", body)[0] == 200
    assert (
        cluster.request(
            "/v1/chat/completions", {**body, "messages": [{**message, "content": "hi"}]}
        )[0]
        == 200
    )
