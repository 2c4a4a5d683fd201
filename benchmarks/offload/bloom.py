"""Bloom-3B's exact geometry with random weights: a shard for each layer, written locally."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BloomConfig, BloomForCausalLM

from deployments import catalog

NUM_LAYERS = 30
VOCAB_SIZE = 250880
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def write(folder: Path, num_layers: int = NUM_LAYERS, vocab_size: int = VOCAB_SIZE) -> int:
    """Writes the checkpoint in bfloat16; returns the bytes of its weights."""
    config = BloomConfig(
        vocab_size=vocab_size,
        hidden_size=2560,
        n_layer=num_layers,
        n_head=32,
        dtype=torch.bfloat16,
        architectures=["BloomForCausalLM"],
    )
    config.save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copy(Path(catalog.checkpoint_path("package:demo/model")) / name, folder)
    with torch.device("meta"):
        model = BloomForCausalLM(config).transformer
    weight_map = _outer(folder, model) | _layers(folder, model)
    num_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    index = {"metadata": {"total_size": num_bytes}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return num_bytes


def _outer(folder: Path, model: torch.nn.Module) -> dict[str, str]:
    weights = {n: p for n, p in model.named_parameters() if not n.startswith("h.")}
    return _save(folder, "outer.safetensors", _random(weights))


def _layers(folder: Path, model: torch.nn.Module) -> dict[str, str]:
    """All layers have the same numbers, each in bytes of its own."""
    layer = _random(dict(model.h[0].named_parameters()))
    found: dict[str, str] = {}
    for number in range(len(model.h)):
        named = {f"h.{number}.{name}": weight for name, weight in layer.items()}
        found |= _save(folder, f"layer-{number:02}.safetensors", named)
    return found


def _random(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: torch.empty(weight.shape, dtype=torch.bfloat16).uniform_(-0.03, 0.03)
        for name, weight in weights.items()
    }


def _save(folder: Path, file: str, weights: dict[str, torch.Tensor]) -> dict[str, str]:
    save_file(weights, folder / file, metadata={"format": "pt"})
    return dict.fromkeys(weights, file)
