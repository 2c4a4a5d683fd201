"""The next token from one row of logits. The order of the steps is vLLM's."""

from dataclasses import dataclass

import torch
from torch import Tensor

from deployments.huggingface.generation import Sampling

LOWEST_LOGPROB = -9999.0  # JSON has no infinity; vLLM and OpenAI send this


@dataclass(frozen=True, slots=True)
class Sampled:
    """A chosen token. `logprob` and `top` are those of the model, before any sampling step."""

    token: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the tokens of one answer: the same seed, prompt and model give the same tokens."""

    def __init__(self, sampling: Sampling, prompt_ids: tuple[int, ...]) -> None:
        self._sampling = sampling
        self._prompt_ids = prompt_ids
        self._generator: torch.Generator | None = None
        self._counts: Tensor | None = None  # of each token in the answer
        self._seen: Tensor | None = None  # whether a token is in prompt or answer

    def sample(self, raw: Tensor, banned: frozenset[int]) -> Sampled:
        """The next token, given the model's logits `(vocab,)`, which are left as they are."""
        logits = self._adjusted(raw.float(), banned)
        token = int(self._choose(logits))
        self._remember(token)
        if self._sampling.num_logprobs is None:
            return Sampled(token)
        return _with_logprobs(token, raw.float(), self._sampling.num_logprobs)

    def _adjusted(self, logits: Tensor, banned: frozenset[int]) -> Tensor:
        bias = self._sampling.logit_bias
        if bias or banned:
            logits = logits.clone()
        if bias:
            ids = torch.tensor(list(bias), device=logits.device)
            logits[ids] += torch.tensor(list(bias.values()), device=logits.device)
        if banned:
            logits[torch.tensor(list(banned), device=logits.device)] = -torch.inf
        return self._penalized(logits)

    def _penalized(self, logits: Tensor) -> Tensor:
        s = self._sampling
        if s.repetition_penalty != 1.0:
            penalized = torch.where(
                logits > 0, logits / s.repetition_penalty, logits * s.repetition_penalty
            )
            logits = torch.where(self._seen_on(logits), penalized, logits)
        if s.frequency_penalty or s.presence_penalty:
            counts = self._counts_on(logits)
            logits = logits - s.frequency_penalty * counts - s.presence_penalty * (counts > 0)
        return logits

    def _choose(self, logits: Tensor) -> Tensor:
        if self._sampling.temperature == 0:
            return logits.argmax()
        logits = logits / self._sampling.temperature
        probs = _truncated(logits, self._sampling).softmax(-1)
        if self._generator is None:
            self._generator = _generator(logits.device, self._sampling.seed)
        # The first of competing exponential clocks to ring: one pass, and no wait for the GPU.
        clocks = torch.empty_like(probs).exponential_(generator=self._generator)
        return (probs / clocks).argmax()

    def _remember(self, token: int) -> None:
        if self._counts is not None:
            self._counts[token] += 1
        if self._seen is not None:
            self._seen[token] = True

    def _counts_on(self, logits: Tensor) -> Tensor:
        if self._counts is None:
            self._counts = torch.zeros_like(logits)
        return self._counts

    def _seen_on(self, logits: Tensor) -> Tensor:
        if self._seen is None:
            self._seen = torch.zeros_like(logits, dtype=torch.bool)
            self._seen[torch.tensor(self._prompt_ids, device=logits.device)] = True
        return self._seen


def _generator(device: torch.device, seed: int | None) -> torch.Generator:
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def _truncated(logits: Tensor, sampling: Sampling) -> Tensor:
    """The logits with those of unlikely tokens set to minus infinity."""
    if sampling.min_p > 0:
        floor = logits.max() + torch.log(torch.tensor(sampling.min_p, device=logits.device))
        logits = logits.masked_fill(logits < floor, -torch.inf)
    if 0 < sampling.top_k < logits.shape[-1]:
        smallest = logits.topk(sampling.top_k).values[-1]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if sampling.top_p < 1:
        logits = _nucleus(logits, sampling.top_p)
    return logits


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Keeps the fewest likeliest tokens that together have `top_p`; at least one."""
    ordered, ids = logits.sort(descending=True)
    before = ordered.softmax(-1).cumsum(-1).roll(1)
    before[0] = -1  # the likeliest token always stays, top_p 0 included
    return logits.masked_fill(
        torch.empty_like(before, dtype=torch.bool).scatter(-1, ids, before >= top_p), -torch.inf
    )


def _with_logprobs(token: int, logits: Tensor, num_top: int) -> Sampled:
    logprobs = logits.log_softmax(-1).clamp(min=LOWEST_LOGPROB)
    values, ids = logprobs.topk(min(num_top, logprobs.shape[-1]))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Sampled(token, float(logprobs[token]), top)
