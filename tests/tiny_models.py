"""Tiny models with random weights, one that recites, and tokenizers of bytes: what tests load."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from deployments.huggingface.engine.vocabulary import BYTE_OF_CHAR

# As most configs call them. Weights this large make varied text, and logits far apart.
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "initializer_range": 0.5,
}
LARGE = {
    "hidden_size": 384,
    "num_hidden_layers": 10,
    "num_attention_heads": 4,
    "intermediate_size": 1536,
    "max_position_embeddings": 256,
}


def byte_level(special: Sequence[str], first_byte: int = 0) -> Tokenizer:
    """A token for each byte, from `first_byte` on. The special tokens are numbered from 0 where
    there is room before the bytes, else behind them."""
    vocab = {char: first_byte + byte for char, byte in BYTE_OF_CHAR.items()}
    if first_byte >= len(special):
        vocab |= {token: n for n, token in enumerate(special)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(special))
    return core


def config_of(kind: str, **fields: Any) -> Any:
    """transformers' config of an architecture; what stands behind a dash is a variant's name."""
    return CONFIG_MAPPING[kind.partition("-")[0]](**fields)


def random_model(
    kind: str, seed: int = 3, dtype: torch.dtype = torch.float32, **fields: Any
) -> Any:
    """A model of an architecture, the same at every call with a seed."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config_of(kind, **fields), dtype=dtype).eval()


def large_llama(**fields: Any) -> LlamaForCausalLM:
    """94 MB of weights in ten layers: too large for what a test may give it."""
    torch.manual_seed(5)
    return LlamaForCausalLM(LlamaConfig(**LARGE | fields))


def reciter(following: Mapping[int, int], **fields: Any) -> LlamaForCausalLM:
    """A Llama that says after each token the one that follows it here. Without attention and
    without layers to speak of: the embedding is as wide as the vocabulary."""
    width = fields["vocab_size"]
    model = LlamaForCausalLM(LlamaConfig(hidden_size=width, num_hidden_layers=1, **fields))
    with torch.no_grad():
        for name in ("self_attn.o_proj", "mlp.down_proj"):  # leaves the embeddings as they are
            model.model.layers[0].get_submodule(name).weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(width))
        model.lm_head.weight.zero_()
        for token, after in following.items():
            model.lm_head.weight[after, token] = 1.0
    return model


def save(model: Any, tokenizer: Any, folder: Path) -> Path:
    """A checkpoint of both."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
