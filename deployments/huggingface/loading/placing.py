"""Where a model is to go, decided before it is loaded, against what this machine really has."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from deployments.config import HuggingFaceConfig, MemoryConfig
from deployments.errors import StartError
from deployments.huggingface.loading.booking import allowed_bytes
from deployments.huggingface.streaming.repacked import FOLDER
from deployments.placement import machine
from deployments.placement.adapters import adapter_bytes
from deployments.placement.arrangement import Tier
from deployments.placement.bandwidth import Bandwidths
from deployments.placement.budget import Budget
from deployments.placement.demand import Model
from deployments.placement.planner import Plan, Question, make_plan, quantizations
from deployments.placement.report import report
from deployments.placement.report_text import as_text, refusal
from deployments.placement.source import from_folder
from deployments.placement.surplus import check_surplus
from deployments.placement.workload import Workload

logger = logging.getLogger(__name__)


def place(folder: Path, config: HuggingFaceConfig, adapters: Iterable[Path] = ()) -> Plan | None:
    """The best plan for this machine, for a model with the adapters in these folders; None for a
    model that cannot be planned and need not be, since no `memory` is given. Raises: StartError for
    one that does not fit."""
    try:
        model = from_folder(folder, config.dtype)
        weights = model.weights.skipping(config.quantization_options.llm_int8_skip_modules)
        total = sum(map(adapter_bytes, adapters))
        model = replace(model, weights=weights, adapter_bytes=total)
    except StartError as unplanned:
        if config.memory is not None:
            raise
        logger.info("Loading without a plan: %s", unplanned.message)
        return None
    check_surplus(folder, model.weights.beyond)
    plan = make_plan(_question(model, config))
    told = report(plan, Bandwidths())
    if plan.chosen is None:
        reasons = "; ".join(f"{no.name}: {no.reason}" for no in told.rejected)
        raise StartError(f"The checkpoint {folder} does not fit. {reasons}. {refusal(told)}")
    logger.info("%s", as_text(told))
    return plan


def settled(config: HuggingFaceConfig, plan: Plan | None) -> HuggingFaceConfig:
    """`config` with the quantisation that the plan chose, where it was left to it."""
    if config.quantization != "auto":
        return config
    chosen = plan.chosen.quantization if plan and plan.chosen else "none"
    return config.model_copy(update={"quantization": chosen})


def _question(model: Model, config: HuggingFaceConfig) -> Question:
    memory = config.memory or MemoryConfig(batch=1, streaming="off")
    known = [memory.context, config.max_model_len, model.geometry.max_model_len]
    context = min(length for length in known if length)
    return Question(
        model,
        Workload(memory.batch, context, config.prefill_chunk_tokens),
        _budget(memory, allowed_bytes(config, machine.total_gpu_bytes())),
        quantizations(model, config.quantization),
        (Tier.RESIDENT,) if memory.streaming == "off" else tuple(Tier),
    )


def _budget(memory: MemoryConfig, allowed_gpu_bytes: int) -> Budget:
    """What a model may use here: what is free, and of that no more than what `memory` says, nor
    than its part of a GPU that it shares."""
    taken = machine.own_ram_bytes()
    return Budget(
        gpu_bytes=min(machine.free_gpu_bytes(), allowed_gpu_bytes),
        cpu_bytes=_least(machine.available_ram_bytes() + taken, memory.cpu),
        disk_bytes=None if memory.disk is None else _disk_bytes(Path(memory.disk)),
        base_bytes=taken,
    )


def _disk_bytes(folder: Path) -> int:
    """What is free, and what an earlier start has put there for this one."""
    repacked = (folder / FOLDER).rglob("*.safetensors")
    return machine.free_disk_bytes(folder) + sum(file.stat().st_size for file in repacked)


def _least(there: int, allowed: int | None) -> int:
    return there if allowed is None else min(there, allowed)
