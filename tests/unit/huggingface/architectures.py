"""A tiny model with random weights of every architecture that the backend promises to serve."""

from pathlib import Path
from typing import Any

from tests import tiny_models

from . import models
from .models import EOS, VOCAB_SIZE

SMALL = tiny_models.SMALL | {
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 128,
    "bos_token_id": EOS,
    "eos_token_id": EOS,
    "pad_token_id": None,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
# With one matrix for both ends random weights would say their last token again and again.
UNTIED = {"tie_word_embeddings": False}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 1},
    "gpt2": GPT2,
    "gpt_bigcode": GPT2,
    "gpt_neox": {},
    "bloom": UNTIED | {"n_layer": 2, "n_head": 2},
    "falcon": {"alibi": False},
    "falcon-alibi": {"alibi": True},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 128},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "pad_token_id": 1},
    "gemma2": UNTIED | {"head_dim": 16, "num_key_value_heads": 1, "sliding_window": 8},
    "gemma3_text": UNTIED
    | {
        "head_dim": 16,
        "num_key_value_heads": 1,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "qwen2": {"num_key_value_heads": 1},
    "phi": {},
    "gptj": GPT2 | {"rotary_dim": 8},
    "gpt_neo": {"num_layers": 2, "num_heads": 2, "window_size": 8}
    | {"attention_types": [[["global", "local"], 1]]},
    "qwen3": {"head_dim": 16, "num_key_value_heads": 1},
    "mistral": {"num_key_value_heads": 1, "sliding_window": 8},
}

# What is batched as those are; that it is planned to the byte, and streams, nobody promises.
MORE: dict[str, dict[str, Any]] = {
    "phi3": {"num_key_value_heads": 1},
    # Its last two layers have the keys and values of those before them.
    "gemma4_text": UNTIED
    | {"num_hidden_layers": 4, "num_kv_shared_layers": 2, "sliding_window": 6}
    | {"layer_types": ["sliding_attention", "full_attention"] * 2}
    | {"head_dim": 16, "global_head_dim": 16}
    | {"num_key_value_heads": 1, "num_global_key_value_heads": 1}
    | {"vocab_size_per_layer_input": VOCAB_SIZE, "hidden_size_per_layer_input": 8},
}


def random_model(kind: str, **more: Any) -> Any:
    """A model of a kind; `more` goes before what the kind has."""
    return tiny_models.random_model(kind, **SMALL | (KINDS | MORE)[kind] | more)


def save(kind: str, folder: Path, **more: Any) -> Any:
    """The same as a checkpoint; returns the model."""
    model = random_model(kind, **more)
    models.save(model, folder)
    return model
