"""Deep and narrow models with random weights, and the same streamed from their files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from deployments.huggingface.streaming import streamed
from deployments.huggingface.streaming.modules import match
from deployments.huggingface.streaming.preparing import Making, need_repacking, prepared
from deployments.huggingface.streaming.streamer import CPU, Streamer
from deployments.placement.arrangement import Tier
from deployments.placement.source import from_folder
from tests import tiny_models
from tests.unit.huggingface.architectures import KINDS, SMALL
from tests.unit.huggingface.models import byte_tokenizer

NUM_LAYERS = 8
LAYER_FIELDS = ("n_layer", "n_layers", "num_layers", "num_hidden_layers")
PATTERNS = {
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"] * (NUM_LAYERS // 2)},
    "gpt_neo": {"attention_types": [[["global", "local"], NUM_LAYERS // 2]]},
}
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def save_deep(kind: str, folder: Path, dtype: torch.dtype, **more: Any) -> None:
    """A checkpoint of eight layers."""
    fields = SMALL | KINDS[kind] | PATTERNS.get(kind, {})
    depth = {name: NUM_LAYERS for name in LAYER_FIELDS if name in fields}
    model = tiny_models.random_model(kind, dtype=dtype, **fields | depth)
    model.save_pretrained(folder, **more)
    byte_tokenizer().save_pretrained(folder)


def resident(folder: Path, dtype: torch.dtype) -> Any:
    """The model as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@dataclass(frozen=True)
class Way:
    """How a model is streamed."""

    tiers: Sequence[Tier]
    num_slots: int = 3
    quantization: str = "none"
    device: torch.device = CPU


def streaming(
    folder: Path,
    dtype: torch.dtype,
    num_slots: int,
    num_resident: int = 2,
    quantization: str = "none",
) -> tuple[Any, Streamer]:
    """The model with its first layers in memory, and the others coming from disk."""
    leading = [Tier.RESIDENT] * num_resident
    tiers = leading + [Tier.DISK] * (NUM_LAYERS - num_resident)
    return streamed_by(Way(tiers, num_slots, quantization), folder, dtype)


def streamed_by(way: Way, folder: Path, dtype: torch.dtype) -> tuple[Any, Streamer]:
    """The model streamed in some way."""
    asked = from_folder(folder, NAMES[dtype])
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    model = streamed.empty(skeleton, dtype)
    matched = match(model, asked.weights)
    if need_repacking(matched, asked.stored_name, way.quantization):
        making = Making(dtype, way.quantization)
        matched = prepared(matched, making, folder / "disk", lambda progress: None)
    streamer = Streamer(matched, way.tiers, way.num_slots, way.device)
    streamer.attach(model, dtype, lambda progress: None)
    return model.eval(), streamer
