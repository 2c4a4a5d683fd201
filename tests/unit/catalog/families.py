"""Tiny models for every family of the catalogue: random weights, or a text to recite.

Their tokenizer knows the special tokens of all families, those of LLaMA where LLaMA has them, and
then the bytes.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast as FastTokenizer

from tests import tiny_models

SPECIAL = (
    "<|endoftext|>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
)
FIRST_BYTE = 16  # beyond the twelve that falcon stops at
VOCAB_SIZE = 320  # also the width of the reciter, which needs as many and whole heads for vLLM
CONTEXT = 1024

SMALL = tiny_models.SMALL | {
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": None,
}
# By the class of the real model: its kind in transformers, and what that calls differently.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "LlamaForCausalLM": ("llama", {"num_key_value_heads": 1}),
    "FalconForCausalLM": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 1}),
    "GPTBigCodeForCausalLM": (
        "gpt_bigcode",
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT, "multi_query": True},
    ),
    "MptForCausalLM": ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": CONTEXT}),
    "GPTNeoXForCausalLM": ("gpt_neox", {}),
}


def tokenizer(eos: str) -> Any:
    core = tiny_models.byte_level(SPECIAL, FIRST_BYTE)
    return FastTokenizer(tokenizer_object=core, bos_token="<s>", eos_token=eos)


def save_random(architecture: str, folder: Path) -> Path:
    """A model of this class with random weights, large enough ones for varied text."""
    kind, other = ARCHITECTURES[architecture]
    model = tiny_models.random_model(kind, seed=5, **SMALL | other)
    assert type(model).__name__ == architecture
    return _save(model, folder, "</s>")


def save_reciter(folder: Path, start: str, text: str) -> Path:
    """A Llama that says `text` after the token `start`, and goes on. Its end token it never says.

    Raises: ValueError for a text in which a token has two successors.
    """
    words = tokenizer("<|endoftext|>")
    steps = words(start + text, add_special_tokens=False)["input_ids"]
    following = dict(pairwise(steps))
    if any(following[token] != after for token, after in pairwise(steps)):
        raise ValueError(text)
    sizes = {"num_attention_heads": 5, "intermediate_size": 32, "pad_token_id": None}
    model = tiny_models.reciter(
        following, vocab_size=VOCAB_SIZE, max_position_embeddings=CONTEXT, **sizes
    )
    return _save(model, folder, "<|endoftext|>")


def _save(model: Any, folder: Path, eos: str) -> Path:
    words = tokenizer(eos)
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id = words.bos_token_id, words.eos_token_id
    return tiny_models.save(model, words, folder)
