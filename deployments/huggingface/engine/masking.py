"""The tokens that grammars allow, applied to all rows of a batch that have one."""

from collections.abc import Sequence as Rows
from functools import cache
from typing import Any

import torch
from torch import Tensor

from deployments.huggingface.engine.grammar import Matcher

MAX_THREADS = 8


def masked(matchers: Rows[Matcher | None], logits: Tensor) -> Tensor:
    """Logits `(batch, vocab)` with minus infinity where a row's grammar allows no such token.

    The other rows are what they were. A matcher that fails says so when it takes its next token.
    """
    rows = [row for row, matcher in enumerate(matchers) if matcher is not None]
    if not rows:
        return logits
    index = torch.tensor(rows, device=logits.device)
    allowed = _allowed([matcher for matcher in matchers if matcher is not None], logits)
    return logits.index_copy(0, index, logits[index].masked_fill(~allowed, -torch.inf))


def _allowed(matchers: list[Matcher], logits: Tensor) -> Tensor:
    """`(rows, vocab)`: whether a token may come next. Tokens that no grammar knows never may."""
    packed = torch.from_numpy(_bits(matchers)).view(torch.uint8).to(logits.device)
    powers = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8, device=logits.device)
    allowed = (packed[:, :, None] & powers).bool().flatten(1)
    num_more = logits.shape[-1] - allowed.shape[-1]
    return torch.nn.functional.pad(allowed, (0, num_more))  # or cut, where it is negative


def _bits(matchers: list[Matcher]) -> Any:
    """A bit for each token, `(rows, words)` of 32, the lowest first."""
    from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask_par

    bits = allocate_token_bitmask(len(matchers), matchers[0].num_tokens)
    states = [(matcher.state, row) for row, matcher in enumerate(matchers)]
    fill_next_token_bitmask_par(_executor(), states, bits)
    for matcher, row in zip(matchers, bits, strict=True):
        matcher.narrow(row)
    return bits


@cache
def _executor() -> Any:
    """Threads that compute the masks of several rows at a time."""
    from llguidance import LLExecutor

    return LLExecutor(min(MAX_THREADS, torch.get_num_threads()))
