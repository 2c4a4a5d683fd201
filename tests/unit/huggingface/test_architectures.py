from pathlib import Path
from typing import Any

import pytest
import torch

from .architectures import KINDS, save
from .asking import COMPLETIONS, ask, started
from .models import EOS


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
