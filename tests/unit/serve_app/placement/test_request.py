"""What replicas ask Ray for: the mapping from args, for nodes that are only described."""

from pathlib import Path
from typing import Any

import pytest
from ray import serve

from deployments.backends import configure
from deployments.catalog import checkpoint_path
from deployments.config import HuggingFaceConfig
from deployments.huggingface.loading.booking import allowed_bytes, enforce, fraction, gpu_bytes
from deployments.placement.arrangement import Tier, least
from deployments.placement.budget import Budget
from deployments.placement.demand import demand
from deployments.placement.source import from_folder
from deployments.placement.workload import Workload
from deployments.vllm_engine.args import _executor
from serve_app.placement.granted import within
from serve_app.placement.node import ACCELERATOR_LABEL, NODE_ID_LABEL, Node
from serve_app.placement.request import cpu_options, num_gpus, options
from serve_app.placement.selector import matches
from tests.unit.placement.tensors import (
    llama_config,
    llama_shapes,
    write_config,
    write_weights,
)
from tests.unit.serve_app.placement.nodes import CPU_NODE, HEAD, gpu_node

API = {"backend": "api", "models": {"m": {"upstream_model": "m"}}}
VLLM = {"backend": "vllm", "checkpoint": "/m"}
HF = {"backend": "huggingface", "checkpoint": "/m"}
BASE_BYTES = 700 * 2**20  # of Python and its libraries
GPU_NODES = (gpu_node("g", 8),)


def actor(args: dict[str, Any], *nodes: Node) -> dict[str, Any]:
    asked = options(configure(args), nodes)
    serve.deployment(lambda: None, **asked)  # Serve takes it
    found: dict[str, Any] = asked["ray_actor_options"]
    return found


@pytest.mark.parametrize(
    ("args", "nodes", "expected"),
    [
        ({**VLLM, "num_gpus": 0.5}, (), 0.5),
        ({**VLLM, "tensor_parallel_size": 4}, (), 4),
        ({**VLLM, "tensor_parallel_size": 4, "num_gpus": 0}, GPU_NODES, 0),
        (VLLM, (CPU_NODE,), 0),
        (VLLM, GPU_NODES, 1),
        ({**VLLM, "gpu_share": 0.25}, GPU_NODES, 0.25),
        ({**VLLM, "accelerator_type": "H100"}, (CPU_NODE,), 1),
        ({**VLLM, "label_selector": {"pool": "b"}}, GPU_NODES, 0),
        (HF, GPU_NODES, 1),
        ({**HF, "memory": {"gpu": "15GB"}}, GPU_NODES, 0.2),
        ({**HF, "memory": {"gpu": "15GB"}, "gpu_share": 0.5}, GPU_NODES, 0.5),
        ({**HF, "memory": {"gpu": "15GB"}}, (*GPU_NODES, gpu_node("s", 4, "T4")), 1),
        ({**HF, "memory": {"gpu": "15GB"}}, (*GPU_NODES, gpu_node("s", 4, "Q4")), 1),
        ({**HF, "memory": {"gpu": 0}}, GPU_NODES, 0),
        (API, GPU_NODES, 0),
        ({"backend": "echo"}, GPU_NODES, 0),
    ],
)
def test_gpus(args: dict[str, Any], nodes: tuple[Node, ...], expected: float) -> None:
    """A replica asks for the GPUs of its args, for one for each shard, or for its share of one
    where the cluster has such; what a `memory` plans with is a share of the smallest of them, as
    far as sizes are known."""
    assert num_gpus(configure(args), nodes) == expected


def test_share_from_the_plan() -> None:
    """A small Hugging Face model with `memory` books what its plan needs, up to a twentieth."""
    args = {"backend": "huggingface", "model_type": "demo", "memory": {"batch": 256}}
    args["checkpoint"] = checkpoint_path("package:demo/model")
    del args["model_type"]
    config = configure(args)
    assert isinstance(config, HuggingFaceConfig)
    needed = gpu_bytes(config)
    assert needed is not None
    assert needed > 500e6
    share = num_gpus(config, (gpu_node("t", 1, "T4"),))
    assert needed / 16e9 <= share < needed / 16e9 + 0.05
    assert share < 0.5


def test_ram_that_is_streamed_from(tmp_path: Path) -> None:
    """A model that must stream from RAM reserves it with Ray, also where no `cpu` is given; one
    that fits its GPU, and one whose GPU is not known yet, reserve none."""
    config = llama_config(hidden_size=512, intermediate_size=2048, num_hidden_layers=24)
    write_config(tmp_path, config)
    write_weights(tmp_path / "model.safetensors", llama_shapes(config))
    args = {"backend": "huggingface", "checkpoint": str(tmp_path), "num_gpus": 1}
    work: dict[str, Any] = {"batch": 1, "context": 64}
    layers = 24 * from_folder(tmp_path).weights.layers[0].stored_bytes
    streamed = actor({**args, "memory": {**work, "gpu": "600MiB"}})["memory"]
    assert layers / 2 < streamed < layers + BASE_BYTES
    given = {**args, "memory": {**work, "gpu": "600MiB", "cpu": "2GiB"}}
    assert actor(given)["memory"] == 2 * 2**30
    for memory in ({"gpu": "15GiB"}, {"gpu": "600MiB", "streaming": "off"}, {"gpu": 0}, {}):
        assert "memory" not in actor({**args, "memory": {**work, **memory}})


def ram_node(promised: int, store: int = 0) -> Node:
    return Node("r", {"CPU": 8.0, "memory": float(promised), "object_store_memory": float(store)})


def test_ram_that_is_streamed_through(tmp_path: Path) -> None:
    """Without a GPU and without `cpu`, a model that even the largest node has no room for reserves
    with Ray what it takes there while it streams from disk, or, if that is more than there is, the
    least that would do. One that a node has room for, or that may not stream, reserves none."""
    config = llama_config(hidden_size=512, intermediate_size=2048, num_hidden_layers=24)
    write_config(tmp_path, config)
    write_weights(tmp_path / "model.safetensors", llama_shapes(config))
    work: dict[str, Any] = {"batch": 1, "context": 64}
    asked = demand(from_folder(tmp_path), "none", Workload(**work))
    least_of = {tier: least(asked, tier, Budget(0, 0)).cpu_bytes for tier in Tier}
    disk = {**work, "disk": str(tmp_path)}

    def reserved(node: Node, **memory: Any) -> int | None:
        args = {**HF, "checkpoint": str(tmp_path), "memory": disk | memory}
        return actor(args, node).get("memory")

    room = least_of[Tier.RESIDENT] - 10**7
    found = reserved(ram_node(room))
    assert found is not None
    assert least_of[Tier.DISK] < found <= room
    assert reserved(ram_node(room - 10**7, 10**7 - 1)) == reserved(ram_node(room - 10**7))
    assert reserved(ram_node(room, 10**7)) is None
    assert reserved(ram_node(room), streaming="off") is None
    assert reserved(ram_node(room), disk=None) is None
    assert reserved(ram_node(room), cpu="2GiB") == 2 * 2**30
    assert reserved(ram_node(least_of[Tier.DISK] - 1)) == least_of[Tier.DISK]
    assert reserved(CPU_NODE) is None  # nobody knows what it has


def test_a_replica_keeps_to_the_ram_that_it_was_promised() -> None:
    """What Ray has granted is the budget of a model without a GPU whose args give none."""

    def cpu(has: dict[str, float], **memory: Any) -> int | None:
        config = within(configure({**HF, "memory": memory}), has)
        assert isinstance(config, HuggingFaceConfig)
        assert config.memory
        return config.memory.cpu

    assert cpu({"memory": 2e9}) == 2 * 10**9
    assert cpu({"memory": 2e9}, cpu="1GB") == 10**9
    assert cpu({"memory": 2e9, "GPU": 1.0}) is None
    assert cpu({"CPU": 1.0}) is None
    assert within(configure(HF), {"memory": 2e9}) == configure(HF)
    half = within(configure(HF), {"GPU": 0.5})
    assert half.num_gpus == 0.5


@pytest.mark.parametrize(
    ("args", "gigabytes"),
    [
        ({}, 80),
        ({"num_gpus": 0.25}, 20),
        ({"gpu_share": 0.5}, 40),
        ({"num_gpus": 0.25, "memory": {"gpu": "4GB"}}, 4),
        ({"num_gpus": 1, "memory": {"gpu": "4GB"}}, 4),
    ],
)
def test_a_share_is_a_limit(args: dict[str, Any], gigabytes: float) -> None:
    """What a Hugging Face model may take of a GPU is its share, and no more than its `memory`;
    the libraries' own comes out of that, not on top."""
    config = configure({**HF, **args})
    assert isinstance(config, HuggingFaceConfig)
    allowed = allowed_bytes(config, 80 * 10**9)
    assert allowed == gigabytes * 1e9
    assert fraction(allowed, 80 * 10**9) == pytest.approx((gigabytes - 0.537) / 80, abs=1e-3)
    enforce(config)  # changes nothing where there is no GPU


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({}, 0.95),
        ({"num_gpus": 0.4}, 0.38),
        ({"gpu_share": 0.4}, 0.38),
        ({"gpu_share": 0.4, "num_gpus": 1}, 0.95),
        ({"tensor_parallel_size": 2}, 0.95),
        ({"num_gpus": 0.4, "gpu_memory_utilization": 0.3}, 0.3),
    ],
)
def test_vllm_is_sized_by_its_share(args: dict[str, Any], expected: float) -> None:
    """vLLM takes 0.95 of a GPU, of a shared one that of its share, unless it is told otherwise."""
    config: Any = configure({**VLLM, **args})
    assert config.memory_utilization == pytest.approx(expected)


def test_tensor_parallelism_stays_on_one_node() -> None:
    """Shards of one stage are asked for as one request, and run as vLLM's own processes."""
    args = {**VLLM, "tensor_parallel_size": 4, "accelerator_type": "H100", "num_cpus": 2}
    asked = options(configure(args), GPU_NODES)
    expected = {"num_cpus": 2, "num_gpus": 4, "accelerator_type": "H100"}
    assert asked == {"ray_actor_options": expected}
    config: Any = configure(args)
    assert _executor(config) == "mp"


def test_stages_span_nodes() -> None:
    """TP x PP is a placement group of one GPU a bundle, the replica's CPUs in the first; the
    replica asks for no GPU, and Ray runs the shards."""
    sizes = {"tensor_parallel_size": 2, "pipeline_parallel_size": 3, "num_cpus": 2}
    args = {**VLLM, **sizes, "accelerator_type": "L4", "label_selector": {"pool": "a"}}
    asked = options(configure(args), ())
    one = {"GPU": 1.0, "accelerator_type:L4": 0.001}
    assert asked.pop("ray_actor_options") == {"num_cpus": 2, "num_gpus": 0}
    assert asked == {
        "placement_group_bundles": [{"CPU": 2, **one}, *[one] * 5],
        "placement_group_strategy": "PACK",
        "placement_group_bundle_label_selector": [{"pool": "a"}],
    }
    actor(args)
    config: Any = configure(args)
    assert _executor(config) == "ray"
    assert _executor(config.model_copy(update={"num_gpus": 0})) == "mp"


def test_without_gpus_off_gpu_nodes() -> None:
    """A replica that needs no GPU keeps off the nodes that have some, labelled or not, if there
    is another that has its CPUs; and goes anywhere if there is none."""
    plain = gpu_node("p", 8, labelled=False)
    nodes = (HEAD, CPU_NODE, *GPU_NODES, plain, gpu_node("n", 8, "H200"))
    for selector in (
        actor(API, *nodes)["label_selector"],
        cpu_options(0.2, nodes)["ray_actor_options"]["label_selector"],
    ):
        assert [node.name for node in nodes if matches(node, selector)] == ["h", "c"]
    assert "label_selector" not in actor(API, HEAD, *GPU_NODES)
    assert "label_selector" not in actor({**API, "num_cpus": 17}, CPU_NODE, *GPU_NODES)
    assert "label_selector" not in actor(VLLM, *nodes)
    selector = actor(API, CPU_NODE)["label_selector"]
    assert not matches(GPU_NODES[0], selector)  # which may come later
    assert NODE_ID_LABEL not in selector


def test_labels() -> None:
    """What the args say of labels goes before our own, for any backend."""
    wanted = {ACCELERATOR_LABEL: "H100"}
    assert actor({**API, "label_selector": wanted}, CPU_NODE)["label_selector"] == wanted
    assert actor({**VLLM, "label_selector": wanted}, *GPU_NODES)["label_selector"] == wanted


def test_no_spaces_between_labels() -> None:
    """Ray 2.60 misreads them where it spreads: none is handed on."""
    wanted = {"kind": "!in(a, b)"}
    assert actor({**API, "label_selector": wanted})["label_selector"] == {"kind": "!in(a,b)"}
    ours = cpu_options(1, (CPU_NODE, *GPU_NODES))["ray_actor_options"]["label_selector"]
    assert not any(" " in condition for condition in ours.values())


@pytest.mark.parametrize(
    ("condition", "labels", "expected"),
    [
        ("a", {"k": "a"}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("!a", {"k": "a"}, False),
        ("in(a, b)", {"k": "b"}, True),
        ("!in(a,b)", {"k": "b"}, False),
        ("!in(a,b)", {"k": "c"}, True),
    ],
)
def test_conditions(condition: str, labels: dict[str, str], expected: bool) -> None:
    """Label conditions mean here what they mean to Ray."""
    assert matches(Node("n", {}, labels), {"k": condition}) is expected
