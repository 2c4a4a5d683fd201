"""Models come, change and go without touching each other."""

import copy
from typing import Any

import httpx2
import pytest

from tests.integration.conftest import Roundhouse, echo_application


def ask(roundhouse: Roundhouse, model: str) -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    return httpx2.post(f"{roundhouse.instance.url}/v1/chat/completions", json=body, timeout=120)


def deploy(roundhouse: Roundhouse, applications: list[dict[str, Any]]) -> None:
    roundhouse.instance.config["applications"] = applications
    roundhouse.instance.deploy(roundhouse.dashboard_url)


def replicas(roundhouse: Roundhouse, applications: list[dict[str, Any]]) -> dict[str, int]:
    """The processes of these; of what an earlier test has removed some may still be going."""
    names = {application["name"] for application in applications}
    found = roundhouse.instance.replicas()
    return {name: pid for name, pid in found.items() if name.partition(":")[0] in names}


def loading(roundhouse: Roundhouse, model: str) -> list[dict[str, Any]]:
    """What /-/models says of the model's replicas that are being loaded."""
    return (roundhouse.instance.application(model) or {}).get("loading", [])


def test_add_and_remove(roundhouse: Roundhouse) -> None:
    """Deploying one more model, and one fewer, leaves every other replica's process alone; while
    the new one loads, operators see how far it is."""
    instance = roundhouse.instance
    applications = instance.config["applications"]
    before = replicas(roundhouse, applications)
    deploy(roundhouse, [*applications, echo_application("newcomer", start_delay_s=8)])
    seen: list[dict[str, Any]] = []
    instance.wait(lambda: seen.extend(loading(roundhouse, "newcomer")) or seen)
    assert seen[0]["percent"] == 25
    assert [shard["file"] for shard in seen[0]["shards"]] == ["echo", "narcissus"]
    assert loading(roundhouse, "echo") == []
    instance.wait(lambda: instance.state("newcomer") == "running")
    assert ask(roundhouse, "newcomer").status_code == 200
    assert replicas(roundhouse, applications) == before

    deploy(roundhouse, applications)
    instance.wait(lambda: instance.state("newcomer") is None)
    instance.wait(lambda: "newcomer:echo" not in instance.replicas())
    assert replicas(roundhouse, applications) == before
    assert ask(roundhouse, "newcomer").status_code == 404


def test_loading_is_logged(roundhouse: Roundhouse) -> None:
    """Operators read in the log of `serve run` how a model was loaded, as it happens."""
    assert "loading weights: 100 %" in roundhouse.instance.log


def test_settings(roundhouse: Roundhouse) -> None:
    """Aliases are reloaded without a restart."""
    instance = roundhouse.instance
    applications = instance.config["applications"]
    before = replicas(roundhouse, applications)
    changed = copy.deepcopy(applications)
    changed[0]["deployments"][0]["user_config"]["aliases"]["another"] = "echo"
    deploy(roundhouse, changed)
    instance.wait(lambda: ask(roundhouse, "another").status_code == 200)
    assert replicas(roundhouse, applications) == before
    deploy(roundhouse, applications)
    instance.wait(lambda: ask(roundhouse, "another").status_code == 404)


@pytest.mark.parametrize("backend", ["huggingface", "vllm"])
def test_broken_model(roundhouse: Roundhouse, backend: str) -> None:
    """A model without its checkpoint is failed, with the reason, and the others serve."""
    instance = roundhouse.instance
    applications = instance.config["applications"]
    before = replicas(roundhouse, applications)
    broken = echo_application("broken")
    broken["args"] = {"backend": backend, "checkpoint": "/no/such/folder", "num_cpus": 0.05}
    deploy(roundhouse, [*applications, broken])
    instance.wait(lambda: instance.state("broken") == "failed")
    row = instance.application("broken")
    assert row is not None
    assert "/no/such/folder" in row["reason"]
    assert instance.get("/ready")[0] == 503
    assert ask(roundhouse, "broken").status_code == 503
    assert "/no/such/folder" not in ask(roundhouse, "broken").text
    assert ask(roundhouse, "echo").status_code == 200
    assert replicas(roundhouse, applications) == before
    deploy(roundhouse, applications)
    instance.wait(lambda: instance.state("broken") is None)
    instance.wait(lambda: instance.get("/ready")[0] == 200)
