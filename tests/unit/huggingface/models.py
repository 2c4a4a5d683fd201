"""Tiny checkpoints for the tests: one with random weights, and one that recites a text."""

from itertools import pairwise
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from tests import tiny_models

EOS, BOS = 256, 257
VOCAB_SIZE = 260
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'system' and not loop.first %}{{ raise_exception('system first') }}{% endif %}"
    "{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)
FIELDS = {
    "vocab_size": VOCAB_SIZE,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "eos_token_id": EOS,
    "bos_token_id": BOS,
    "pad_token_id": None,
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose token n is the byte n; then an end and a beginning token."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tiny_models.byte_level(["<|end|>", "<|begin|>"]),
        eos_token="<|end|>",
        bos_token="<|begin|>",
        chat_template=TEMPLATE,
    )


def save_random(folder: Path) -> Path:
    """A Llama with random weights, large enough ones for varied text."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.6}
    return save(tiny_models.random_model("llama", seed=7, **FIELDS, **sizes), folder)


def save_reciter(folder: Path, text: str) -> Path:
    """A Llama that says `text` after ">" and ends; no byte may come twice in ">" + text."""
    steps = [*f">{text}".encode(), EOS]
    assert len(set(steps)) == len(steps)
    return save(tiny_models.reciter(dict(pairwise(steps)), **FIELDS), folder)


def save_large(folder: Path) -> Path:
    """94 MB of weights in ten layers."""
    ends = {"bos_token_id": EOS, "eos_token_id": EOS}
    return save(tiny_models.large_llama(vocab_size=VOCAB_SIZE, **ends), folder)


def save(model: object, folder: Path) -> Path:
    """A checkpoint of a model, with the byte tokenizer."""
    return tiny_models.save(model, byte_tokenizer(), folder)
