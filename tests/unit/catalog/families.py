"""Tiny models for every family of the catalogue: random weights, or a text to recite.

Their tokenizer knows the special tokens of all families, those of LLaMA where LLaMA has them, and
then the bytes.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as FastTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from deployments.huggingface.vocabulary import BYTE_OF_CHAR

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

SMALL = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.5,
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
    vocab = {char: FIRST_BYTE + byte for char, byte in BYTE_OF_CHAR.items()}
    vocab |= {token: n for n, token in enumerate(SPECIAL)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(SPECIAL))
    return FastTokenizer(tokenizer_object=core, bos_token="<s>", eos_token=eos)


def save_random(architecture: str, folder: Path) -> Path:
    """A model of this class with random weights, large enough ones for varied text."""
    torch.manual_seed(5)
    kind, other = ARCHITECTURES[architecture]
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**SMALL | other))
    assert type(model).__name__ == architecture
    return _save(model.to(torch.float32), folder, "</s>")


def save_reciter(folder: Path, start: str, text: str) -> Path:
    """A Llama that says `text` after the token `start`, and goes on. Its end token it never says.

    Raises: ValueError for a text in which a token has two successors.
    """
    words = tokenizer("<|endoftext|>")
    steps = words(start + text, add_special_tokens=False)["input_ids"]
    following = dict(pairwise(steps))
    if any(following[token] != after for token, after in pairwise(steps)):
        raise ValueError(text)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=VOCAB_SIZE,
            num_hidden_layers=1,
            num_attention_heads=5,
            intermediate_size=32,
            max_position_embeddings=CONTEXT,
            pad_token_id=None,
        )
    )
    with torch.no_grad():
        for name in ("self_attn.o_proj", "mlp.down_proj"):  # leaves the embeddings as they are
            model.model.layers[0].get_submodule(name).weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(VOCAB_SIZE))
        model.lm_head.weight.zero_()
        for token, after in following.items():
            model.lm_head.weight[after, token] = 1.0
    return _save(model, folder, "<|endoftext|>")


def _save(model: Any, folder: Path, eos: str) -> Path:
    words = tokenizer(eos)
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id = words.bos_token_id, words.eos_token_id
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
