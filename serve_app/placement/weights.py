"""How large a GPU must be for a model's weights: from the checkpoint's headers, where they can be
read from here, else from the catalogue's figures. Downloads nothing, and knows nothing else."""

from pathlib import Path

from deployments import catalog
from deployments.config import (
    GPU_MEMORY_UTILIZATION,
    BackendConfig,
    CheckpointConfig,
    HuggingFaceConfig,
    VLLMConfig,
)
from deployments.errors import StartError
from deployments.placement.demand import demand
from deployments.placement.source import from_folder
from deployments.placement.workload import Workload
from serve_app.placement.shape import Shape

SMALLEST = "nf4"  # what `quantization: auto` comes to, where nothing larger fits
BYTES_OF_PARAMETER = {"none": 2.0, "int8": 1.0, SMALLEST: 0.56}


def gpu_gb(config: BackendConfig, shape: Shape) -> float | None:
    """Of one GPU of a replica, in 10^9 bytes; None where it runs on none, where nothing is known,
    and for a Hugging Face model with `memory`, whose weights need not be on the GPU."""
    if not isinstance(config, CheckpointConfig) or not shape.num_gpus:
        return None
    if isinstance(config, HuggingFaceConfig) and config.memory is not None:
        return None
    size = _weight_bytes(config)
    return None if size is None else size / config.num_shards / _part(config, shape) / 1e9


def _part(config: CheckpointConfig, shape: Shape) -> float:
    """Of each GPU, what the replica may fill."""
    share = min(1.0, shape.num_gpus)
    if isinstance(config, VLLMConfig):
        return config.gpu_memory_utilization or GPU_MEMORY_UTILIZATION * share
    return share


def _weight_bytes(config: CheckpointConfig) -> float | None:
    folder = Path(catalog.checkpoint_path(config.checkpoint))
    quantization = SMALLEST if config.quantization == "auto" else config.quantization
    if folder.is_dir():
        try:
            model = from_folder(folder, config.dtype)
        except StartError:
            return None
        return demand(model, quantization, Workload()).weight_bytes
    entry = catalog.entries().get(config.model_type or "")
    if entry is None or entry.parameters is None or config.dtype == "float32":
        return None
    return entry.parameters * BYTES_OF_PARAMETER[quantization]
