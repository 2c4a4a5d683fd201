"""What clients want of logits before a token is chosen: biases, bans and penalties.

Each kind is one operation for all rows of a batch that ask for it. The order is vLLM's.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Rows

import torch
from torch import Tensor

from deployments.huggingface.engine.sampling import Sampler

Banned = frozenset[int]


def adjusted(samplers: Rows[Sampler], banned: Rows[Banned], raw: Tensor) -> Tensor:
    """Logits `(batch, vocab)` as their rows' samplers want them, without the tokens that are banned
    from each; `raw` itself where nobody wants anything."""
    if not (any(sampler.adjusts for sampler in samplers) or any(banned)):
        return raw
    logits = raw.clone()
    biases = (
        (row, token, bias)
        for row, sampler in enumerate(samplers)
        for token, bias in sampler.sampling.logit_bias.items()
    )
    _put(logits, biases, adds=True)
    bans = ((row, token, -torch.inf) for row, tokens in enumerate(banned) for token in tokens)
    _put(logits, bans, adds=False)
    _repeat(samplers, logits)
    _count(samplers, logits)
    return logits


def _put(logits: Tensor, values: Iterable[tuple[int, int, float]], adds: bool) -> None:
    """Writes a value to each of some places, or adds it to what is there."""
    found = list(values)
    if found:
        rows, tokens, numbers = zip(*found, strict=True)
        places = tuple(torch.tensor(part, device=logits.device) for part in (rows, tokens))
        logits.index_put_(places, logits.new_tensor(numbers), accumulate=adds)


def _repeat(samplers: Rows[Sampler], logits: Tensor) -> None:
    """Divides by `repetition_penalty` what was in prompt or answer and is likely; what is not is
    multiplied."""
    rows = [r for r, sampler in enumerate(samplers) if sampler.sampling.repetition_penalty != 1]
    if rows:
        seen = torch.stack([samplers[row].seen_on(logits) for row in rows])
        penalties = _column(logits, [samplers[r].sampling.repetition_penalty for r in rows])
        before = logits[rows]
        after = torch.where(before > 0, before / penalties, before * penalties)
        logits[rows] = torch.where(seen, after, before)


def _count(samplers: Rows[Sampler], logits: Tensor) -> None:
    """Takes from each token of the answer so far, once and as often as it is there."""
    asked = [(row, sampler.sampling) for row, sampler in enumerate(samplers)]
    rows = [row for row, s in asked if s.frequency_penalty or s.presence_penalty]
    if rows:
        counts = torch.stack([samplers[row].counts_on(logits) for row in rows])
        by_count = _column(logits, [samplers[row].sampling.frequency_penalty for row in rows])
        once = _column(logits, [samplers[row].sampling.presence_penalty for row in rows])
        logits[rows] -= by_count * counts + once * (counts > 0)


def _column(logits: Tensor, values: list[float]) -> Tensor:
    """One value for each row, `(rows, 1)`."""
    return logits.new_tensor(values)[:, None]
