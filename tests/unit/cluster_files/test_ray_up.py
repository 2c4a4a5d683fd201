"""cluster/ray-up: valid by Ray's own schema, and nodes that hold what the configs ask for.

No machine is started, and no cloud asked.
"""

import copy
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from serve_app.check import document, inventory
from serve_app.placement.cluster_plan import cluster_plan
from serve_app.placement.node import Node
from serve_app.placement.wanted import wanted
from tests.unit.cluster_files.kubernetes import ROOT

FILES = sorted((ROOT / "cluster" / "ray-up").glob("*.yaml"))
CLOUDS = [file.stem for file in FILES]
CONFIGS = ("serve_config.yaml", "cluster/serve_config.ultrafeedback.yaml")


def config(cloud: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f"cluster/ray-up/{cloud}.yaml").read_text())
    return found


@pytest.mark.parametrize("cloud", CLOUDS)
def test_valid_for_ray_up(cloud: str) -> None:
    """`ray up` takes the file, and refuses it with a key that it does not know."""
    validate_config(prepare_config(config(cloud)))
    wrong = copy.deepcopy(config(cloud))
    wrong["available_node_types"]["cpu"]["max_worker"] = 3
    with pytest.raises(ValidationError):
        validate_config(prepare_config(wrong))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_limit_lets_every_kind_grow(cloud: str) -> None:
    """The cluster may have as many nodes as its kinds together."""
    kinds = config(cloud)["available_node_types"].values()
    assert config(cloud)["max_workers"] == sum(kind["max_workers"] for kind in kinds)


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("file", CONFIGS)
def test_the_nodes_hold_what_the_configs_ask_for(cloud: str, file: str) -> None:
    """Every model fits the largest cluster at its least, and the head does no work."""
    kinds = config(cloud)["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0}
    nodes = tuple(
        Node.of_ray(f"{name}-{index}", {"memory": 10**11, **kind["resources"]}, kind.get("labels"))
        for name, kind in kinds.items()
        for index in range(kind["max_workers"])
    )
    assert {node.kind for node in nodes} == {"8 CPUs", "1xL4-24GB", "8xH100-80GB"}
    parsed, _ = document.load((ROOT / file).read_text())
    asked = inventory.read(parsed.value if parsed else None)
    assert asked is not None
    plan = cluster_plan(list(wanted(asked, nodes)), nodes, "of the file")
    assert plan.fits, [row.why for row in plan.applications if row.why]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_nodes_are_installed_and_started_as_the_readme_says(cloud: str) -> None:
    """By `make install` from the locks; with the token, without orphans; the head without CPUs, and
    its dashboard for itself. Secrets come from files of the operator's."""
    found = config(cloud)
    assert any("make install" in command for command in found["setup_commands"])
    for role in ("head", "worker"):
        start = found[f"{role}_start_ray_commands"][-1]
        assert "RAY_AUTH_MODE=token" in start
        assert "RAY_process_group_cleanup_enabled=1" in start
    assert "--num-cpus=0" in found["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in found["head_start_ray_commands"][-1]
    assert set(found["file_mounts"].values()) == {".", "~/.ray/auth_token", "~/roundhouse.env"}
