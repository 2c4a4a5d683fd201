"""A model of the catalogue on a real cluster, from its `model_type` to its answer."""

from pathlib import Path

import httpx2
import pytest
import yaml

from serve_app.check.nodes import largest_node
from tests.integration.conftest import Roundhouse, echo_application
from tests.unit.catalog.families import save_random

KEY = "falcon-40b-instruct"
POOL = Path(__file__).parents[2] / "cluster" / "serve_config.ultrafeedback.yaml"


def test_a_model_of_the_pool(roundhouse: Roundhouse, tmp_path: Path) -> None:
    """A model_type and a checkpoint, scaled as the pool's file scales it, is cold until it is asked
    for; then it is started, and answers the request that started it by its family's template."""
    pool = {app["name"]: app for app in yaml.safe_load(POOL.read_text("utf-8"))["applications"]}
    scaling = pool[KEY]["args"]["autoscaling"]
    falcon = echo_application(KEY)
    falcon["args"] = {"model_type": KEY, "backend": "huggingface", "num_gpus": 0, "num_cpus": 0.1}
    falcon["args"] |= {"checkpoint": str(save_random("FalconForCausalLM", tmp_path))}
    falcon["args"] |= {"autoscaling": scaling}
    instance, applications = roundhouse.instance, roundhouse.instance.config["applications"]
    instance.config["applications"] = [*applications, falcon]
    instance.deploy(roundhouse.dashboard_url)
    instance.wait(lambda: instance.state(KEY) == "cold")

    body = {"model": KEY, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    url = f"{instance.url}/v1/chat/completions"
    answer = httpx2.post(url, json={**body, "ignore_eos": True}, timeout=120)
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    assert usage["prompt_tokens"] == len("User: Hi\n\nAssistant:")
    assert usage["completion_tokens"] == 3

    instance.config["applications"] = applications
    instance.deploy(roundhouse.dashboard_url)
    instance.wait(lambda: instance.state(KEY) is None)


def test_the_running_clusters_gpus(roundhouse: Roundhouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` and `models` ask the running cluster for its GPUs."""
    address = roundhouse.instance.gcs_address()
    monkeypatch.setenv("RAY_ADDRESS", address)
    node = largest_node(None)
    assert node is not None
    assert node.source == f"in the running cluster {address}"
