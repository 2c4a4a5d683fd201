"""cluster/serve_config.ultrafeedback.yaml: the whole pool, and what it says of itself."""

import re
from pathlib import Path
from typing import Any

import yaml

from deployments import backends
from deployments.catalog import entries
from deployments.config import BackendConfig
from serve_app.check import inventory
from serve_app.check.nodes import Node
from serve_app.check.report import check

from .facts import facts

FILE = Path(__file__).parents[3] / "cluster" / "serve_config.ultrafeedback.yaml"
TEXT = FILE.read_text("utf-8")
EIGHT = Node(8, "as --gpus-per-node says")


def configs() -> dict[str, BackendConfig]:
    applications: list[dict[str, Any]] = yaml.safe_load(TEXT)["applications"]
    return {app["name"]: backends.configure(app["args"]) for app in applications[1:]}


def gpus() -> list[int]:
    """Those of one replica of each local model."""
    local = [config for config in configs().values() if config.backend != "api"]
    return [getattr(config, "tensor_parallel_size", 1) for config in local]


def test_it_serves_the_pool() -> None:
    """Every model of the pool has an application of its own, under its own name."""
    asked = inventory.read(yaml.safe_load(TEXT))
    assert asked is not None
    assert asked.model_ids() == set(facts())
    assert len(asked.applications) == 1 + len(facts())


def test_it_passes_the_check() -> None:
    """`check` finds nothing wrong on nodes of 8 GPUs, wherever it runs."""
    assert check(str(FILE), TEXT, EIGHT).findings == ()


def test_smaller_gpus() -> None:
    """With GPUs of 24 GB, only the models that the file names need anything else."""
    text = TEXT.replace("gpu_memory_gb: 80", "gpu_memory_gb: 24")
    messages = [found.message for found in check(str(FILE), text, EIGHT).findings]
    named = [name for name in entries() if any(f"knows {name} on" in m for m in messages)]
    assert named == ["starchat", "mpt-30b-chat"]
    assert len(messages) == len(named)


def test_its_gpus() -> None:
    """The GPUs that it says it takes are those that it asks for."""
    said = re.search(r"take\n# +(\d+) GPUs, (\d+) at most", TEXT)
    assert said is not None
    assert (int(said[1]), int(said[2])) == (sum(gpus()), max(gpus()))


def test_a_models_type_is_all_it_takes() -> None:
    """Beside how it scales and the memory of the GPUs, args are a model_type, and a checkpoint only
    where the hub has none."""
    beside = {"autoscaling", "gpu_memory_gb"}
    for app in yaml.safe_load(TEXT)["applications"][1:]:
        lost = entries()[app["name"]].needs_checkpoint
        rest = {name: value for name, value in app["args"].items() if name not in beside}
        checkpoint = {"checkpoint": f"/models/{app['name']}"} if lost else {}
        assert rest == {"model_type": app["name"], **checkpoint}
