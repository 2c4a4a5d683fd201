"""Real vLLM over two nodes, by its Ray executor, in the placement group that we make. -m slow.

vLLM's CPU platform knows no resource of Ray's; one of the test's own, a platform plugin as vLLM
provides for, calls the GPUs that these nodes declare its devices. Everything else is the product's.
No question is asked: vLLM 0.32 makes room for what a second stage is handed on GPUs only
(gpu_model_runner.py, sync_and_gather_intermediate_tensors), and on a CPU its engine dies of it.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._private.state import state
from ray.util import placement_group_table

from tests.cluster.simulated import Simulated, gpu_node, simulated

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
PLATFORM = """\
from vllm.platforms.cpu import CpuPlatform

class DeclaredGpus(CpuPlatform):
    ray_device_key = "GPU"

    @classmethod
    def device_control_id_to_physical_device_id(cls, device_id):
        return int(device_id)

def register():
    return "declared_gpus.DeclaredGpus"
"""
ENTRY_POINTS = "[vllm.platform_plugins]\ndeclared_gpus = declared_gpus:register\n"
APPLICATIONS: list[dict[str, Any]] = [
    {"name": "router", "route_prefix": "/", "import_path": "serve_app.app:router", "args": {}},
    {
        "name": "stages",
        "route_prefix": None,
        "import_path": "serve_app.app:model",
        "args": {
            "model_type": "demo",
            "backend": "vllm",
            "num_cpus": 0.1,
            "max_model_len": 128,
            "pipeline_parallel_size": 2,
        },
    },
]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulated]:
    """Two nodes with a GPU each, on paper, and the plugin where every process finds it."""
    (tmp_path / "declared_gpus.py").write_text(PLATFORM)
    described = tmp_path / "declared_gpus-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: declared_gpus\nVersion: 1\n")
    (described / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.getcwd()]))
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    with simulated(gpu_node(1, "L4"), gpu_node(1, "H100")) as running:
        yield running


def test_stages_start_on_two_nodes(cluster: Simulated) -> None:
    """`pipeline_parallel_size: 2` loads a stage on each of two nodes, in the bundles of one group,
    and is told as running."""
    cluster.deploy(APPLICATIONS)
    cluster.wait(lambda: cluster.rows().get("stages", {}).get("state") == "running", 900)
    kinds = cluster.kinds()
    (group,) = [g for g in placement_group_table().values() if g["state"] == "CREATED"]
    assert {kinds[node] for node in group["bundles_to_node_id"].values()} == {"h100", "l4"}
    actors = state.actor_table(None, actor_state_name="ALIVE").values()
    workers = [a["Address"]["NodeID"] for a in actors if a["ActorClassName"] == "RayWorkerProc"]
    assert sorted(kinds[node] for node in workers) == ["h100", "l4"]
