"""What a replica asks Ray for, from its application's args. Pure: knows the nodes, asks nobody.

- No GPU (API models, the router): CPUs, off GPU nodes where there are others.
- One GPU or a part of it, or several on one node: `num_gpus`; vLLM's processes share them.
- Stages over several nodes: a placement group of a bundle for each shard, since a vLLM worker takes
  a bundle of one GPU; the replica itself sits in the first, and asks for no GPU.
"""

from collections.abc import Sequence
from math import ceil, inf
from typing import Any

from deployments.config import BackendConfig, HuggingFaceConfig
from deployments.huggingface.loading.booking import NodeRam, gpu_bytes, ram_bytes
from serve_app.placement.node import ACCELERATOR, ACCELERATOR_PART, Node
from serve_app.placement.selector import as_ray_reads, matches, off_gpu_nodes

SHARE_STEPS = 20  # a share is rounded up to a twentieth
LARGEST_SHARE = 0.5  # two replicas with more do not fit on one GPU
MEMORY, OBJECT_STORE = "memory", "object_store_memory"  # Ray's names

Options = dict[str, Any]


def options(config: BackendConfig, nodes: Sequence[Node]) -> Options:
    """The options of a Serve deployment that say what a replica takes, and where it may be."""
    if config.spans_nodes:
        return _group(config)
    gpus = num_gpus(config, nodes)
    actor: Options = {"num_cpus": config.num_cpus, "num_gpus": gpus}
    if (reserved := _reserved_ram_bytes(config, gpus, nodes)) is not None:
        actor["memory"] = reserved
    if config.accelerator_type and gpus:
        actor["accelerator_type"] = config.accelerator_type
    selector = config.label_selector
    if not gpus and not selector:
        selector = off_gpu_nodes(nodes, config.num_cpus)
    if selector:
        actor["label_selector"] = as_ray_reads(selector)
    return {"ray_actor_options": actor}


def cpu_options(num_cpus: float, nodes: Sequence[Node]) -> Options:
    """Those of a deployment that is no model: the router."""
    actor: Options = {"num_cpus": num_cpus}
    if selector := off_gpu_nodes(nodes, num_cpus):
        actor["label_selector"] = selector
    return {"ray_actor_options": actor}


def num_gpus(config: BackendConfig, nodes: Sequence[Node]) -> float:
    """The GPUs of one replica: what the args say, else its share where there are any."""
    if config.num_gpus is not None:
        return config.num_gpus
    if config.num_shards > 1:
        return float(config.num_shards)
    suitable = [node for node in nodes if node.num_gpus and _suits(node, config)]
    if not suitable:
        return config.gpu_share if config.accelerator_type else 0.0
    planned = _planned_share(config, suitable)
    return config.gpu_share if planned is None else planned


def _reserved_ram_bytes(config: BackendConfig, gpus: float, nodes: Sequence[Node]) -> int | None:
    """What other replicas must not be promised: `memory.cpu`, or what a model streams through."""
    if not isinstance(config, HuggingFaceConfig):
        return config.reserved_ram_bytes
    suitable = [node for node in nodes if matches(node, config.label_selector)]
    return ram_bytes(config, None if gpus else _largest_ram(suitable))


def _largest_ram(nodes: Sequence[Node]) -> NodeRam | None:
    """Of the node that can promise the most. Ray parts what a node has in what it promises and the
    room of its object store."""
    node = max(nodes, key=lambda node: node.resources.get(MEMORY, 0), default=None)
    promised = node.resources.get(MEMORY, 0) if node else 0
    if node is None or not 0 < promised < inf:
        return None
    return NodeRam(int(promised), int(promised + node.resources.get(OBJECT_STORE, 0)))


def _suits(node: Node, config: BackendConfig) -> bool:
    wanted = config.accelerator_type
    return wanted in {None, node.accelerator} and matches(node, config.label_selector)


def _planned_share(config: BackendConfig, nodes: Sequence[Node]) -> float | None:
    """The part of the smallest GPU that the `memory` of a Hugging Face model was planned with;
    None where there is no plan, or where the part would be a whole one."""
    if not isinstance(config, HuggingFaceConfig) or "gpu_share" in config.model_fields_set:
        return None
    needed, sizes = gpu_bytes(config), [node.gpu_memory_gb for node in nodes]
    known = [size for size in sizes if size]
    if needed is None or len(known) < len(sizes):
        return None
    share = ceil(needed / (min(known) * 1e9) * SHARE_STEPS) / SHARE_STEPS
    return share if share <= LARGEST_SHARE else None


def _group(config: BackendConfig) -> Options:
    """PACK: on as few nodes as there can be. vLLM numbers its workers node by node, so stages do
    not mix where nodes have whole stages free."""
    bundle = {"GPU": 1.0}
    if config.accelerator_type:
        bundle[ACCELERATOR + config.accelerator_type] = ACCELERATOR_PART
    group: Options = {
        "ray_actor_options": {"num_cpus": config.num_cpus, "num_gpus": 0},
        "placement_group_bundles": [
            {"CPU": config.num_cpus, **bundle},
            *(dict(bundle) for _ in range(config.num_shards - 1)),
        ],
        "placement_group_strategy": "PACK",
    }
    if config.label_selector:
        group["placement_group_bundle_label_selector"] = [as_ray_reads(config.label_selector)]
    return group
