from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .asking import COMPLETIONS, ask, started
from .models import EOS, VOCAB_SIZE, byte_tokenizer

SMALL = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "initializer_range": 0.5,
    "bos_token_id": EOS,
    "eos_token_id": EOS,
    "pad_token_id": None,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
KINDS: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "gpt_bigcode": GPT2,
    "gpt_neox": {},
    "bloom": {"n_layer": 2, "n_head": 2},
    "falcon": {"alibi": False},
    "falcon-alibi": {"alibi": True},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 128},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "pad_token_id": 1},
    "gemma2": {"head_dim": 16, "num_key_value_heads": 1, "sliding_window": 8},
    "qwen3": {"head_dim": 16, "num_key_value_heads": 1},
    "mistral": {"num_key_value_heads": 1, "sliding_window": 8},
}


def save(kind: str, folder: Path) -> Any:
    torch.manual_seed(3)
    config = CONFIG_MAPPING[kind.partition("-")[0]](**SMALL | KINDS[kind])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # used by gpt_bigcode
async def test_greedy_equals_generate(kind: str, tmp_path: Path) -> None:
    """Whatever the architecture, greedy text is that of transformers' generate."""
    model = save(kind, tmp_path)
    prompt = list(range(100, 112))
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 24, "pad_token_id": EOS}
    expected = model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()
    async with started(tmp_path) as backend:
        got = await ask(
            backend, COMPLETIONS, prompt=prompt, temperature=0, max_tokens=24, logprobs=0
        )
    tokens = got.body["choices"][0]["logprobs"]["tokens"]
    assert [t for t in expected if t < EOS] == [t for t in map(token_id, tokens) if t < EOS]
    assert got.tail.completion_tokens == len(expected)


def token_id(token: str) -> int:
    """The byte that a token of the tests' tokenizer is; the special ones are no bytes."""
    if token.startswith("\\x"):
        return int(token[2:], 16)
    return ord(token) if len(token) == 1 else EOS
