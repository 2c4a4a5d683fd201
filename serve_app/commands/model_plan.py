"""What a model of the catalogue would ask of a cluster, and whether the cluster has it.

It goes by the catalogue's figures: the weights themselves are for `roundhouse plan` to look at.
"""

from dataclasses import dataclass
from typing import Any, Self

from deployments import backends, catalog
from deployments.config import BackendConfig
from serve_app.check.nodes import Node, largest_node

OWN_CHECKPOINT = "/where/it/is"


@dataclass(frozen=True, slots=True)
class Nodes:
    """The largest node, as far as anything is known of one."""

    node: Node | None
    memory_gb: float | None

    @classmethod
    def of(cls, gpus_per_node: float | None, memory_gb: float | None) -> Self:
        """What the operator says, else the running cluster, else this machine."""
        node = largest_node(gpus_per_node)
        return cls(node, memory_gb or (node.memory_gb if node else None))

    def __str__(self) -> str:
        size = f"{self.memory_gb:g}" if self.memory_gb else f"{catalog.GPU_MEMORY_GB}"
        assumed = "" if self.memory_gb else " (assumed: --gpu-memory-gb says otherwise)"
        if self.node is None:
            return "not known: the cluster does not answer (--gpus-per-node)"
        if not self.node.num_gpus:
            return f"no GPU, {self.node.source}"
        return f"{self.node.num_gpus:g} GPUs of {size} GB{assumed}, {self.node.source}"


def plan(name: str, nodes: Nodes) -> dict[str, Any]:
    """The args to write, what a replica then asks for, and whether it `fits`: null for unknown."""
    entry = catalog.entries()[name]
    args: dict[str, Any] = {"model_type": name}
    if entry.needs_checkpoint:
        args["checkpoint"] = OWN_CHECKPOINT
    if entry.gpus and nodes.memory_gb and nodes.memory_gb < catalog.GPU_MEMORY_GB:
        args[catalog.GPU_MEMORY_ARG] = int(nodes.memory_gb)
    told = {"args": args, "largest_node": str(nodes)}
    try:
        config = backends.configure(args)
    except catalog.Unservable as error:
        return {**told, "fits": False, "why": error.message}
    num_gpus = _num_gpus(config, nodes.node)
    fits, why = _verdict(config, num_gpus, nodes.node)
    asked = {"backend": config.backend, "gpus_per_replica": num_gpus, **_split(config)}
    return {**told, **asked, "fits": fits, "why": why}


def _num_gpus(config: BackendConfig, node: Node | None) -> float:
    """As the builder asks: the shards of vLLM, else a share of a GPU where there are any."""
    if config.num_gpus is not None:
        return config.num_gpus
    shards: int = getattr(config, "tensor_parallel_size", 1)
    if shards > 1:
        return shards
    return config.gpu_share if node is None or node.num_gpus else 0


def _split(config: BackendConfig) -> dict[str, int]:
    shards = getattr(config, "tensor_parallel_size", 1)
    return {"tensor_parallel_size": shards} if shards > 1 else {}


def _verdict(config: BackendConfig, num_gpus: float, node: Node | None) -> tuple[bool | None, str]:
    if config.num_gpus == 0:
        return True, "it needs no GPU"
    if node is None:
        return None, "nothing is known of the nodes"
    if num_gpus > node.num_gpus:
        return False, f"it asks one node for {num_gpus:g} GPUs; the largest has {node.num_gpus:g}"
    if num_gpus:
        return True, f"the largest node has {node.num_gpus:g} GPUs, a replica takes {num_gpus:g}"
    if catalog.entries()[str(getattr(config, "model_type", ""))].gpus:
        return None, "without a GPU it would run on the CPU, in RAM: see `roundhouse plan`"
    return True, "it is small enough for a CPU"
