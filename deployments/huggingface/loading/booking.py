"""What a Hugging Face model books of a GPU and of RAM, and that it takes no more of the GPU.

Ray books parts of GPUs but enforces none; torch's allocator does. Imports torch only to enforce.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deployments.catalog import checkpoint_path
from deployments.config import HuggingFaceConfig, MemoryConfig
from deployments.errors import StartError
from deployments.placement.adapters import adapter_bytes
from deployments.placement.arrangement import GPU_LIBRARY_BYTES, Tier, least
from deployments.placement.budget import Budget
from deployments.placement.demand import Model, demand
from deployments.placement.planner import Plan, Question, make_plan, quantizations
from deployments.placement.source import from_folder
from deployments.placement.workload import Workload

UNLIMITED = 2**60


@dataclass(frozen=True, slots=True)
class NodeRam:
    """Of a node: what it can promise its replicas, and all that there is."""

    promised_bytes: int
    all_bytes: int


def gpu_bytes(config: HuggingFaceConfig) -> int | None:
    """The GPU memory that `memory` asks for: its `gpu`, else what the resident model needs for its
    batch and context. None without `memory`, or where the checkpoint cannot be read from here."""
    memory = config.memory
    if memory is None or memory.gpu is not None:
        return memory.gpu if memory else None
    if (model := _model(config)) is None:
        return None
    exact = "none" if config.quantization == "auto" else config.quantization
    asked = demand(model, exact, _workload(memory, model, config))
    return least(asked, Tier.RESIDENT, Budget(UNLIMITED, UNLIMITED)).gpu_bytes


def ram_bytes(config: HuggingFaceConfig, largest: NodeRam | None = None) -> int | None:
    """The RAM that a replica is to reserve: `memory.cpu`, else what layers take that stream from
    RAM to a GPU of `memory.gpu`, else, without a GPU, what a model that even the `largest` node has
    no room for takes there while it streams from `memory.disk`. None where nothing must stream, or
    where what streams follows from the node that the replica will be on."""
    memory = config.memory
    if memory is None or memory.cpu is not None:
        return config.reserved_ram_bytes
    can_stream = bool(memory.gpu) or (memory.disk is not None and largest is not None)
    if memory.streaming == "off" or not can_stream or (model := _model(config)) is None:
        return None
    if memory.gpu:
        tiers = Tier.RESIDENT, Tier.RAM
        plan = make_plan(_question(config, memory, model, Budget(memory.gpu, UNLIMITED), tiers))
        return plan.arrangement.host_bytes if plan.streams and plan.arrangement else None
    return None if largest is None else _bytes_from_disk(config, memory, model, largest)


def _bytes_from_disk(
    config: HuggingFaceConfig, memory: MemoryConfig, model: Model, largest: NodeRam
) -> int | None:
    """None for a model that may be resident. For one that cannot even stream in what the node can
    promise, the least: Ray then says that there is no such node."""

    def planned(num_bytes: int) -> Plan:
        return make_plan(_question(config, memory, model, Budget(0, num_bytes, UNLIMITED)))

    best = planned(largest.all_bytes).chosen
    if best is not None and best.tier is Tier.RESIDENT:
        return None
    plan = planned(largest.promised_bytes)
    if plan.arrangement is not None:
        return plan.arrangement.host_bytes
    return plan.smallest.needs.cpu_bytes if plan.smallest else None


def _question(
    config: HuggingFaceConfig,
    memory: MemoryConfig,
    model: Model,
    budget: Budget,
    tiers: Sequence[Tier] = tuple(Tier),
) -> Question:
    allowed = quantizations(model, config.quantization)
    return Question(model, _workload(memory, model, config), budget, allowed, tiers)


def _model(config: HuggingFaceConfig) -> Model | None:
    """The model with its adapters, as far as their files are here."""
    folder = Path(checkpoint_path(config.checkpoint)).expanduser()
    adapters = (Path(checkpoint_path(path)).expanduser() for path in config.adapters.values())
    if not folder.is_dir():
        return None
    try:
        model = from_folder(folder, config.dtype)
        weights = model.weights.skipping(config.quantization_options.llm_int8_skip_modules)
        return replace(model, weights=weights, adapter_bytes=sum(map(adapter_bytes, adapters)))
    except StartError:
        return None


def _workload(memory: MemoryConfig, model: Model, config: HuggingFaceConfig) -> Workload:
    known = [memory.context, config.max_model_len, model.geometry.max_model_len]
    context = min(length for length in known if length)
    return Workload(memory.batch, context, config.prefill_chunk_tokens)


def allowed_bytes(config: HuggingFaceConfig, total_bytes: int) -> int:
    """What the model may take of a GPU of `total_bytes`."""
    shared = int(config.gpu_fraction * total_bytes)
    limit = config.memory.gpu if config.memory else None
    return shared if limit is None else min(shared, limit)


def enforce(config: HuggingFaceConfig) -> None:
    """From here on the process cannot allocate more: a neighbour's memory is its own."""
    if allowed_bytes(config, UNLIMITED) == UNLIMITED:
        return
    import torch

    if not torch.cuda.is_available():
        return
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    allowed = allowed_bytes(config, total_bytes)
    if allowed < total_bytes:
        torch.cuda.set_per_process_memory_fraction(fraction(allowed, total_bytes))


def fraction(allowed: int, total_bytes: int) -> float:
    """For torch's allocator. The libraries take theirs beside it, as the planner counts too."""
    return max(allowed - GPU_LIBRARY_BYTES, 0) / total_bytes
