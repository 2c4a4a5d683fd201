"""Tiny checkpoints for the tests: one with random weights, and one that recites a text."""

from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deployments.huggingface.vocabulary import BYTE_OF_CHAR

EOS, BOS = 256, 257
VOCAB_SIZE = 260
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'system' and not loop.first %}{{ raise_exception('system first') }}{% endif %}"
    "{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose token n is the byte n; then an end and a beginning token."""
    core = Tokenizer(models.BPE(vocab=dict(BYTE_OF_CHAR), merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|end|>", "<|begin|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|end|>",
        bos_token="<|begin|>",
        chat_template=TEMPLATE,
    )


def save_random(folder: Path) -> Path:
    """A Llama with random weights, large enough ones for varied text."""
    torch.manual_seed(7)
    config = _config(hidden_size=32, num_hidden_layers=2, initializer_range=0.6)
    return _save(LlamaForCausalLM(config), folder)


def save_reciter(folder: Path, text: str) -> Path:
    """A Llama that says `text` after ">" and ends; no byte may come twice in ">" + text."""
    config = _config(hidden_size=VOCAB_SIZE, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(config)
    steps = [*f">{text}".encode(), EOS]
    assert len(set(steps)) == len(steps)
    with torch.no_grad():
        for name in ("self_attn.o_proj", "mlp.down_proj"):  # leaves the embeddings as they are
            model.model.layers[0].get_submodule(name).weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(VOCAB_SIZE))
        model.lm_head.weight.zero_()
        for token, following in pairwise(steps):
            model.lm_head.weight[following, token] = 1.0
    return _save(model, folder)


def _config(**sizes: int | float) -> LlamaConfig:
    sizes = {"num_attention_heads": 2, "intermediate_size": 48} | sizes
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=256,
        eos_token_id=EOS,
        bos_token_id=BOS,
        pad_token_id=None,
        **sizes,
    )


def _save(model: LlamaForCausalLM, folder: Path) -> Path:
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
