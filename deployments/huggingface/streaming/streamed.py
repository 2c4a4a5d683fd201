"""From a plan to a model that streams, or to the reason why it cannot."""

from typing import Any

import torch

from deployments.huggingface.streaming.layout import can_be_viewed
from deployments.huggingface.streaming.modules import Matched, Unstreamable, match
from deployments.huggingface.streaming.streamer import Streamer
from deployments.placement.planner import Plan
from deployments.placement.weights import CASTABLE
from deployments.progress import Report

__all__ = ["Unstreamable", "load"]


def load(skeleton: Any, plan: Plan, report: Report) -> Any:
    """The model of `skeleton`, with its weights where the plan puts them.

    Raises: Unstreamable, before anything is read; WeightsLost, OSError.
    """
    arrangement, asked = plan.arrangement, plan.question.model
    assert arrangement is not None
    _check_plan(plan)
    dtype: torch.dtype = getattr(torch, asked.dtype)
    model = empty(skeleton, dtype)
    matched = match(model, asked.weights)
    _check(matched, asked.stored_name)
    streamer = Streamer(matched, arrangement.tiers, arrangement.num_slots)
    streamer.attach(model, dtype, report)
    return model.eval()


def empty(skeleton: Any, dtype: torch.dtype) -> Any:
    """The model of `skeleton` in its type, without weights."""
    config = skeleton.config
    with torch.device("meta"):
        return type(skeleton)._from_config(
            config, dtype=dtype, attn_implementation=config._attn_implementation
        )


def _check_plan(plan: Plan) -> None:
    """Raises: Unstreamable."""
    if plan.question.budget.has_gpu:
        raise Unstreamable("the ring does not reach a GPU yet")
    if plan.chosen is not None and plan.chosen.quantization != "none":
        raise Unstreamable("its weights would have to be quantised first")


def _check(matched: Matched, stored: str) -> None:
    """Raises: Unstreamable for layers that would have to be converted."""
    for part in matched.of_layers:
        for name, tensor in part.items():
            if tensor.dtype != stored and tensor.dtype in CASTABLE:
                raise Unstreamable(f"`{name}` is stored as {tensor.dtype}, not as {stored}")
            if not can_be_viewed(tensor):
                raise Unstreamable(f"`{name}` is not aligned in its file")
