"""What a Hugging Face model books of a GPU and of RAM, and that it takes no more of the GPU.

Ray books parts of GPUs but enforces none; torch's allocator does. Imports torch only to enforce.
"""

from dataclasses import replace
from pathlib import Path

from deployments.catalog import checkpoint_path
from deployments.config import HuggingFaceConfig, MemoryConfig
from deployments.errors import StartError
from deployments.placement.adapters import adapter_bytes
from deployments.placement.arrangement import GPU_LIBRARY_BYTES, Tier, least
from deployments.placement.budget import Budget
from deployments.placement.demand import Model, demand
from deployments.placement.planner import Question, make_plan, quantizations
from deployments.placement.source import from_folder
from deployments.placement.workload import Workload

UNLIMITED = 2**60


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


def ram_bytes(config: HuggingFaceConfig) -> int | None:
    """The RAM that a replica is to reserve: `memory.cpu`, else what layers take that stream from
    RAM to a GPU of `memory.gpu`. None where nothing streams, or where what streams follows from
    the node that the replica will be on."""
    memory = config.memory
    if memory is None or memory.cpu is not None:
        return config.reserved_ram_bytes
    if not memory.gpu or memory.streaming == "off" or (model := _model(config)) is None:
        return None
    allowed = quantizations(model, config.quantization)
    tiers = Tier.RESIDENT, Tier.RAM
    budget = Budget(memory.gpu, UNLIMITED)
    workload = _workload(memory, model, config)
    plan = make_plan(Question(model, workload, budget, allowed, tiers))
    return plan.arrangement.host_bytes if plan.streams and plan.arrangement else None


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
