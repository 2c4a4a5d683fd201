"""The part of a GPU that a Hugging Face model books: how much it needs, and that it takes no more.

Ray books parts of GPUs but enforces none; torch's allocator does. Imports torch only to enforce.
"""

from pathlib import Path

from deployments.catalog import checkpoint_path
from deployments.config import HuggingFaceConfig
from deployments.errors import StartError
from deployments.placement.arrangement import GPU_LIBRARY_BYTES, Tier, least
from deployments.placement.budget import Budget
from deployments.placement.demand import demand
from deployments.placement.source import from_folder
from deployments.placement.workload import Workload

UNLIMITED = 2**60


def gpu_bytes(config: HuggingFaceConfig) -> int | None:
    """The GPU memory that `memory` asks for: its `gpu`, else what the resident model needs for its
    batch and context. None without `memory`, or where the checkpoint cannot be read from here."""
    memory, folder = config.memory, Path(checkpoint_path(config.checkpoint))
    if memory is None or memory.gpu is not None or not folder.is_dir():
        return memory.gpu if memory else None
    try:
        model = from_folder(folder, config.dtype)
    except StartError:
        return None
    known = [memory.context, config.max_model_len, model.geometry.max_model_len]
    context = min(length for length in known if length)
    workload = Workload(memory.batch, context, config.prefill_chunk_tokens)
    exact = "none" if config.quantization == "auto" else config.quantization
    asked = demand(model, exact, workload)
    return least(asked, Tier.RESIDENT, Budget(UNLIMITED, UNLIMITED)).gpu_bytes


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
