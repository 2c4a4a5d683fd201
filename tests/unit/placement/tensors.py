"""Checkpoints to plan, made of headers: sparse files with the right lengths and nothing in them."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployments.placement.demand import Model
from deployments.placement.source import from_folder

SIZES = {"F32": 4, "BF16": 2, "F16": 2, "I32": 4}
Shapes = Mapping[str, tuple[int, ...]]


def write_weights(path: Path, shapes: Shapes, dtype: str = "BF16") -> None:
    """A safetensors file whose tensors are holes: they take no disk, whatever their size."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def llama_config(**fields: Any) -> dict[str, Any]:
    """A Llama of 8 layers."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 1000,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **fields,
    }


def llama_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head_dim = hidden // config["num_attention_heads"]
    of_layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (config["num_key_value_heads"] * head_dim, hidden),
        "self_attn.v_proj": (config["num_key_value_heads"] * head_dim, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        for name, shape in of_layer.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return shapes | {
        "model.norm.weight": (hidden,),
        "lm_head.weight": (config["vocab_size"], hidden),
    }


def llama(folder: Path, **fields: Any) -> Model:
    """A Llama to plan."""
    config = llama_config(**fields)
    write_config(folder, config)
    write_weights(folder / "model.safetensors", llama_shapes(config))
    return from_folder(folder)
