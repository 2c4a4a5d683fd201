"""From a plan to a model that streams, or to the reason why it cannot."""

from pathlib import Path
from typing import Any

import torch

from deployments.huggingface.streaming.freed_memory import return_freed_memory
from deployments.huggingface.streaming.modules import Unstreamable, match
from deployments.huggingface.streaming.preparing import Making, need_repacking, prepared
from deployments.huggingface.streaming.streamer import Streamer
from deployments.placement.planner import Plan
from deployments.progress import Report

__all__ = ["Unstreamable", "load"]


def load(
    skeleton: Any,
    plan: Plan,
    disk: Path | None,
    report: Report,
    unquantized: frozenset[str] = frozenset(),
) -> Any:
    """The model of `skeleton`, with its weights where the plan puts them.

    `disk` is where layers may be repacked; the modules named `unquantized` are packed nowhere.

    Raises: Unstreamable, before anything is read; StartError, WeightsLost, OSError.
    """
    arrangement, chosen, asked = plan.arrangement, plan.chosen, plan.question.model
    assert arrangement is not None
    assert chosen is not None
    dtype: torch.dtype = getattr(torch, asked.dtype)
    if not plan.question.budget.has_gpu:
        return_freed_memory()  # what repacking takes, too
    model = empty(skeleton, dtype)
    matched = match(model, asked.weights)
    making = Making(dtype, chosen.quantization, unquantized)
    if need_repacking(matched, asked.stored_name, chosen.quantization):
        if disk is None:
            raise Unstreamable("its layers must be repacked, and there is no disk to do that on")
        matched = prepared(matched, making, disk, report)
    device = torch.device("cuda" if plan.question.budget.has_gpu else "cpu")
    streamer = Streamer(matched, arrangement.tiers, arrangement.num_slots, device)
    streamer.attach(model, dtype, report)
    return model.eval()


def empty(skeleton: Any, dtype: torch.dtype) -> Any:
    """The model of `skeleton` in its type, without weights."""
    config = skeleton.config
    with torch.device("meta"):
        return type(skeleton)._from_config(
            config, dtype=dtype, attn_implementation=config._attn_implementation
        )
