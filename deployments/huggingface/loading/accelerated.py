"""Weights that do not fit, brought to the model by accelerate's hooks: `streaming: accelerate`.

The plain way, for every architecture: a module's weights are copied in before it runs and dropped
after. It holds nothing ready, so it is the slow way, and weights that are not resident are never
quantised: transformers leaves out what it maps to RAM or disk.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import infer_auto_device_map

from deployments.config import HuggingFaceConfig
from deployments.errors import StartError
from deployments.huggingface.loading import quantization
from deployments.placement.arrangement import Tier, slot_bytes
from deployments.placement.demand import Demand
from deployments.placement.planner import Plan


def load(
    skeleton: Any, folder: Path, config: HuggingFaceConfig, plan: Plan
) -> tuple[Any, set[str]]:
    """The model with its hooks, and the names of weights that the files lack.

    Raises: StartError, what transformers and accelerate raise.
    """
    _check(config, plan)
    # Embeddings and head are one tensor, if they are tied, before they are put anywhere.
    skeleton.tie_weights()
    dtype = _dtype(plan)
    device_map = infer_auto_device_map(
        skeleton.to(dtype),
        max_memory=max_memory(plan),
        no_split_module_classes=skeleton._no_split_modules,
    )
    with quantization.convertible(type(skeleton)):
        model, info = type(skeleton).from_pretrained(
            folder,
            config=skeleton.config,
            dtype=dtype,
            device_map=device_map,
            offload_folder=config.memory.disk if config.memory else None,
            attn_implementation=skeleton.config._attn_implementation,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **_quantization(config, dtype, skeleton),
        )
    quantization.check(model, config.quantization)
    return model, set(info["missing_keys"])


def max_memory(plan: Plan) -> dict[int | str, int]:
    """What accelerate may put where. Where the model runs it keeps room for its largest layer."""
    chosen, arrangement = plan.chosen, plan.arrangement
    assert chosen is not None
    assert arrangement is not None
    by_tier = _bytes_by_tier(chosen.demand, arrangement.tiers)
    device = chosen.demand.outer + by_tier[Tier.RESIDENT] + slot_bytes(chosen.demand)
    if not plan.question.budget.has_gpu:
        return {"cpu": device}
    return {0: device, "cpu": by_tier[Tier.RAM]}


def _bytes_by_tier(demand: Demand, tiers: tuple[Tier, ...]) -> Mapping[Tier, int]:
    found = dict.fromkeys(Tier, 0)
    for tier, size in zip(tiers, demand.layers, strict=True):
        found[tier] += size
    return found


def _dtype(plan: Plan) -> Any:
    import torch

    return getattr(torch, plan.question.model.dtype)


def _quantization(config: HuggingFaceConfig, dtype: Any, skeleton: Any) -> dict[str, Any]:
    found = quantization.options(config, dtype, skeleton)
    if settings := found.get("quantization_config"):
        settings.llm_int8_enable_fp32_cpu_offload = True
    return found


def _check(config: HuggingFaceConfig, plan: Plan) -> None:
    """Raises: StartError for what accelerate and bitsandbytes cannot do together."""
    on_gpu = plan.question.budget.has_gpu
    if config.quantization == "int8" and on_gpu:
        if config.quantization_options.llm_int8_enable_fp32_cpu_offload is False:
            raise StartError(
                "quantization_options: llm_int8_enable_fp32_cpu_offload: false cannot work: "
                "accelerate is to bring weights from RAM or disk, which it leaves unquantised. "
                "Leave it out, or give the model more `memory`."
            )
        return
    if config.quantization != "none":
        where = "on a GPU" if on_gpu else "on a CPU"
        raise StartError(
            f"quantization: {config.quantization} with streaming: accelerate cannot work {where}: "
            "weights that accelerate brings from RAM or disk are not quantised (int8 works for "
            "those that stay on a GPU). Use `quantization: none`, or more `memory`."
        )
