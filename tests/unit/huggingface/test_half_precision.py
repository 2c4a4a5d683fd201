"""bf16: the order of summation depends on the size of the batch, so ties may fall either way."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from deployments.huggingface.engine.capacity import Capacity

from .architectures import KINDS, MORE, random_model
from .models import EOS
from .scheduling import Asked, Event, run

MAX_TOKENS = 32
PROMPT_LENGTHS = (1, 3, 5, 8, 13, 21, 25, 26, 30)
TIE = 2**-7  # of the largest logit: one unit in the last of bf16's eight bits

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # gpt_bigcode


def prompts() -> list[tuple[int, ...]]:
    chosen = random.Random(5)
    return [tuple(chosen.choices(range(EOS), k=length)) for length in PROMPT_LENGTHS]


def first_difference(one: list[int], other: list[int]) -> int | None:
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), None)


def watched(model: Any, sequence: Asked) -> list[Tensor]:
    """Runs a sequence alone; the logits `(vocab,)` that each of its tokens was chosen by."""
    rows: list[Tensor] = []
    handle = model.register_forward_hook(lambda *args: rows.append(args[-1].logits[0, -1].float()))
    run(model, Capacity(), [Event(0, sequence)])
    handle.remove()
    return rows


@pytest.mark.parametrize("kind", [*KINDS, *MORE])
def test_company_changes_only_ties(kind: str) -> None:
    """In bf16 an answer is what it is alone, up to a token that was as likely as the chosen one."""
    check_ties(random_model(kind).to(torch.bfloat16))


def check_ties(model: Any) -> None:
    """Asserts that company changes nothing but ties, on whatever device the model is."""
    alone = [Asked(prompt, MAX_TOKENS) for prompt in prompts()]
    rows = [watched(model, sequence) for sequence in alone]
    together = [Asked(prompt, MAX_TOKENS) for prompt in prompts()]
    run(model, Capacity(prefill_chunk_tokens=16), [Event(2 * n, s) for n, s in enumerate(together)])
    num_same = 0
    for single, other, chosen_by in zip(alone, together, rows, strict=True):
        at = first_difference(single.answer, other.answer)
        if at is None:
            assert len(single.answer) == len(other.answer)
            num_same += 1
            continue
        row = chosen_by[at]
        gap = float(row.max() - row[other.answer[at]])
        assert gap <= TIE * float(row.abs().max())
    assert num_same > len(alone) / 2  # ties are rare
