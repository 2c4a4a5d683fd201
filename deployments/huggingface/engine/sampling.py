"""The next token of each row of logits. The order of the steps is vLLM's.

Each step is one operation for all rows that need it; but a row with a seed draws its own random
numbers. Biases, bans and penalties come before: penalties.py.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch
from torch import Tensor

from deployments.huggingface.engine.generation import Sampling
from deployments.huggingface.engine.truncation import truncate

LOWEST_LOGPROB = -9999.0  # JSON has no infinity; vLLM and OpenAI send this
NO_TOKEN = -1  # of a row that the model gave no numbers for
LOWEST_TEMPERATURE = 1e-5  # below it logits overflow, and the likeliest token is certain anyway


@dataclass(frozen=True, slots=True)
class Sampled:
    """A chosen token. `logprob` and `top` are those of the model, before any sampling step, among
    the tokens that a grammar allows: as vLLM's."""

    token: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """What one answer has of its own: its penalties, and its random numbers.

    The same seed, prompt and model give the same tokens, whatever answers are sampled beside it.
    `is_greedy`: it wants the likeliest token. `adjusts`: it wants other logits than the model's
    (penalties.py).
    """

    def __init__(self, sampling: Sampling, prompt_ids: tuple[int, ...]) -> None:
        self.sampling = sampling
        self.is_greedy = sampling.temperature < LOWEST_TEMPERATURE
        self.adjusts = _adjusts(sampling)
        self._prompt_ids = prompt_ids
        self._generator: torch.Generator | None = None
        self._before: Tensor | None = None  # the generator's state, while a draw is under way
        self._counts: Tensor | None = None  # of each token in the answer
        self._seen: Tensor | None = None  # whether a token is in prompt or answer

    def remember(self, token: int) -> None:
        """Counts a token of the answer, which was drawn last."""
        self._before = None
        if self._counts is not None:
            self._counts[token] += 1
        if self._seen is not None:
            self._seen[token] = True

    def fill_clocks(self, clocks: Tensor) -> None:
        """Overwrites random numbers `(vocab,)` by the seed's own, if there is a seed."""
        if self.sampling.seed is None:
            return
        if self._generator is None:
            self._generator = torch.Generator(clocks.device).manual_seed(self.sampling.seed)
        if self._before is None:
            self._before = self._generator.get_state()
        else:  # a draw that came to no token: the step failed, and is taken again
            self._generator.set_state(self._before)
        clocks.exponential_(generator=self._generator)

    def counts_on(self, logits: Tensor) -> Tensor:
        """How often each token `(vocab,)` is in the answer; counted from the first call on."""
        if self._counts is None:
            self._counts = logits.new_zeros(logits.shape[-1])
        return self._counts

    def seen_on(self, logits: Tensor) -> Tensor:
        """Whether each token `(vocab,)` is in prompt or answer; followed from the first call on."""
        if self._seen is None:
            self._seen = logits.new_zeros(logits.shape[-1], dtype=torch.bool)
            self._seen[torch.tensor(self._prompt_ids, device=logits.device)] = True
        return self._seen


def _adjusts(s: Sampling) -> bool:
    penalties = (s.frequency_penalty, s.presence_penalty, s.repetition_penalty - 1.0)
    return bool(s.logit_bias) or any(penalties)


def sample(samplers: Rows[Sampler], logits: Tensor, raw: Tensor) -> list[Sampled]:
    """The next token of each row of `logits` `(batch, vocab)`, which are adjusted already.

    `raw` are the model's own, but for what grammars forbid: they give the log probabilities. Where
    they are NaN the token is NO_TOKEN. Where all are greedy and no log probabilities are wanted, it
    waits for the device once; otherwise also for each list that a GPU gets: of the rows that are
    drawn, of their temperatures, of what truncates them.
    """
    chosen = logits.argmax(-1)
    drawn = [row for row, sampler in enumerate(samplers) if not sampler.is_greedy]
    if drawn:
        chosen[drawn] = _draw([samplers[row] for row in drawn], logits[drawn])
    checked = torch.where(raw.amax(-1).isnan(), NO_TOKEN, chosen)
    sampled = [Sampled(token) for token in checked.tolist()]
    asked = [r for r, sampler in enumerate(samplers) if sampler.sampling.num_logprobs is not None]
    if asked:
        counts = [samplers[row].sampling.num_logprobs or 0 for row in asked]
        for row, found in zip(asked, with_logprobs(chosen[asked], raw[asked], counts), strict=True):
            sampled[row] = found if sampled[row].token != NO_TOKEN else sampled[row]
    for sampler, choice in zip(samplers, sampled, strict=True):
        if choice.token != NO_TOKEN:
            sampler.remember(choice.token)
    return sampled


def _draw(samplers: Rows[Sampler], logits: Tensor) -> Tensor:
    samplings = [sampler.sampling for sampler in samplers]
    temperatures = torch.tensor([[s.temperature] for s in samplings], device=logits.device)
    probs = truncate(logits / temperatures, samplings).softmax(-1)
    # The first of competing exponential clocks to ring: one pass, and no wait for the GPU.
    clocks = torch.empty_like(probs)
    if any(s.seed is None for s in samplings):
        clocks.exponential_()
    for row, sampler in enumerate(samplers):
        sampler.fill_clocks(clocks[row])
    return (probs / clocks).argmax(-1)


def with_logprobs(chosen: Tensor, raw: Tensor, counts: list[int]) -> list[Sampled]:
    """Tokens `(rows,)` with their log probabilities and with the likeliest `counts` in each row."""
    logprobs = raw.log_softmax(-1).clamp(min=LOWEST_LOGPROB)
    values, ids = logprobs.topk(min(max(counts), logprobs.shape[-1]))
    own = logprobs.gather(-1, chosen[:, None])[:, 0].tolist()
    tops = zip(ids.tolist(), values.tolist(), counts, strict=True)
    alternatives = [tuple(zip(i[:count], v[:count], strict=True)) for i, v, count in tops]
    return [Sampled(*found) for found in zip(chosen.tolist(), own, alternatives, strict=True)]
