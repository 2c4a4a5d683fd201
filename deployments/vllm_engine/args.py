"""vLLM's own arguments, as a model application's args set them. Starts nothing."""

import difflib
from argparse import Namespace
from pathlib import Path
from typing import Any

from deployments.adapters import read_adapter_config
from deployments.catalog import checkpoint_path
from deployments.config import VLLMConfig
from deployments.errors import StartError

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as `max_lora_rank`
MAX_LORAS = 8  # in one batch; each takes GPU memory for the largest rank


def server_args(path: str, model_id: str, config: VLLMConfig) -> Namespace:
    """vLLM's own defaults with this configuration laid over them. Raises: StartError."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    args: Namespace = make_arg_parser(FlexibleArgumentParser()).parse_args([])
    settings = {
        "model": path,
        "served_model_name": [model_id],
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "chat_template": config.chat_template and checkpoint_path(config.chat_template),
        "trust_remote_code": config.trust_remote_code,
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "distributed_executor_backend": _executor(config),
        "gpu_memory_utilization": config.memory_utilization,
        # vLLM's own spans are made of its statistics, and without them its engine would die.
        "disable_log_stats": "otlp_traces_endpoint" not in config.engine_options,
        **_quantization(config),
        **_adapters(model_id, config),
        **config.engine_options,
    }
    for name, value in settings.items():
        if not hasattr(args, name):
            near = difflib.get_close_matches(name, vars(args), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise StartError(f"vLLM has no engine option {name}{hint}")
        setattr(args, name, value)
    return args


def _executor(config: VLLMConfig) -> str | None:
    """What runs the shards: vLLM would go by what it finds around it, GPUs and Ray."""
    if config.spans_nodes:
        return "ray"
    if config.num_shards > 1:
        return "mp"
    has_one_core = config.engine_options.get("data_parallel_size", 1) == 1
    return _in_core() if has_one_core and computes_on_cpu() else None


def _in_core() -> str:
    from deployments.vllm_engine.in_core import IN_CORE

    return IN_CORE


def _adapters(model_id: str, config: VLLMConfig) -> dict[str, Any]:
    """vLLM's options for adapters. It would take one of them at a time, of rank 16, by itself."""
    if not config.adapters:
        return {}
    from vllm.entrypoints.openai.models.protocol import LoRAModulePath

    paths = {name: checkpoint_path(path) for name, path in config.adapters.items()}
    folders = {name: Path(path) for name, path in paths.items() if Path(path).is_dir()}
    configs = [read_adapter_config(name, folder) for name, folder in folders.items()]
    ranks = [r for c in configs for r in (c.get("r"), *(c.get("rank_pattern") or {}).values())]
    needed = max((rank for rank in ranks if isinstance(rank, int)), default=16)
    return {
        "enable_lora": True,
        "lora_modules": [LoRAModulePath(f"{model_id}:{name}", paths[name]) for name in paths],
        "max_loras": _num_lora_slots(len(paths)),
        "max_lora_rank": next((rank for rank in LORA_RANKS if rank >= needed), needed),
    }


def _num_lora_slots(num_adapters: int) -> int:
    """How many adapters one batch may have.

    Without a GPU, vLLM 0.32 gives rows of the base model the last slot's adapter: their index -1
    is taken for Python's (vllm/lora/ops/torch_ops/lora_ops.py). A last slot that no adapter ever
    needs holds zeros.
    """
    return num_adapters + 1 if computes_on_cpu() else min(num_adapters, MAX_LORAS)


def computes_on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _quantization(config: VLLMConfig) -> dict[str, str]:
    if config.quantization == "int8":
        raise StartError("vLLM quantises to nf4 only; int8 needs `backend: huggingface`.")
    return {"quantization": "bitsandbytes"} if config.quantization == "nf4" else {}
