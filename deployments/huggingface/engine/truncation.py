"""Logits without the unlikely tokens: min_p, top_k and top_p, for all rows that ask for them."""

from collections.abc import Sequence as Rows

import torch
from torch import Tensor

from deployments.huggingface.engine.generation import Sampling


def truncate(logits: Tensor, samplings: Rows[Sampling]) -> Tensor:
    """Logits `(batch, vocab)` with those of unlikely tokens set to minus infinity.

    At least one token of each row stays.
    """
    vocab_size = logits.shape[-1]
    if any(s.min_p > 0 for s in samplings):
        logits = _above_floor(logits, [s.min_p for s in samplings])
    limited = [row for row, s in enumerate(samplings) if 0 < s.top_k < vocab_size]
    if limited:
        logits[limited] = _top(logits[limited], [samplings[row].top_k for row in limited])
    nucleus = [row for row, s in enumerate(samplings) if s.top_p < 1]
    if nucleus:
        logits[nucleus] = _nucleus(logits[nucleus], [samplings[row].top_p for row in nucleus])
    return logits


def _above_floor(logits: Tensor, min_ps: list[float]) -> Tensor:
    """Keeps what is at least `min_p` times as likely as the likeliest; all at `min_p` 0."""
    floors = logits.max(-1, keepdim=True).values + _column(min_ps, logits).log()
    return logits.masked_fill(logits < floors, -torch.inf)


def _top(logits: Tensor, top_ks: list[int]) -> Tensor:
    """Keeps the `top_k` likeliest tokens, and those as likely as the last of them."""
    last = torch.tensor([[k - 1] for k in top_ks], device=logits.device)
    smallest = logits.topk(max(top_ks)).values.gather(-1, last)
    return logits.masked_fill(logits < smallest, -torch.inf)


def _nucleus(logits: Tensor, top_ps: list[float]) -> Tensor:
    """Keeps the fewest likeliest tokens that together have `top_p`; at least one."""
    ordered, ids = logits.sort(descending=True)
    before = ordered.softmax(-1).cumsum(-1).roll(1, dims=-1)
    before[:, 0] = -1  # the likeliest token always stays, top_p 0 included
    unlikely = before >= _column(top_ps, logits)
    return logits.masked_fill(unlikely.scatter(-1, ids, unlikely), -torch.inf)


def _column(values: list[float], logits: Tensor) -> Tensor:
    """One value for each row, `(batch, 1)`."""
    return torch.tensor(values, device=logits.device, dtype=logits.dtype)[:, None]
