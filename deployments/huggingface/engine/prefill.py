"""Prompts on their way into the cache, a chunk at a time.

Several short prompts go in together, padded; a prompt that is longer than a chunk goes in alone.
Sequences with the same prompt, the choices of one request, share its one row until it is in; not
those of different adapters, which make different keys and values of the same tokens.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from deployments.huggingface.engine import cache as caches
from deployments.huggingface.engine.batch import Arrivals
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.engine.generation import Score
from deployments.huggingface.engine.prompt_scores import PromptScores
from deployments.huggingface.engine.sequence import Sequence

Prompt = tuple[str | None, tuple[int, ...]]  # an adapter, and token ids


class Newcomers:
    """The sequences that the next prefill takes, in chunks of so many tokens."""

    def __init__(self, chunk_tokens: int) -> None:
        self.chunk_tokens = chunk_tokens
        self.sequences: list[Sequence] = []
        self.rows: list[int] = []  # which of the prompts each sequence has
        self.prompts: dict[Prompt, int] = {}
        self._longest = 0

    def add(self, sequence: Sequence) -> None:
        """Takes a sequence."""
        self.sequences.append(sequence)
        self.rows.append(self.prompts.setdefault(_prompt(sequence), len(self.prompts)))
        self._longest = max(self._longest, sequence.num_context_tokens)

    def has_room(self, sequence: Sequence) -> bool:
        """Whether this one too would cost no further chunk, and is of the same kind."""
        if not self.sequences:
            return True
        if sequence.num_prompt_top != self.sequences[0].num_prompt_top:
            return False
        if _prompt(sequence) in self.prompts:
            return True
        longest = max(self._longest, sequence.num_context_tokens)
        return (len(self.prompts) + 1) * longest <= self.chunk_tokens


class Prefill:
    """The prefill of some sequences. `logits` `(batch, vocab)` are there once it is done."""

    def __init__(self, newcomers: Newcomers, device: torch.device) -> None:
        self.sequences = newcomers.sequences
        self.logits: Tensor | None = None
        self._ids, self._mask = _padded([ids for _, ids in newcomers.prompts], device)
        self._adapters = [adapter for adapter, _ in newcomers.prompts]
        self._rows = torch.tensor(newcomers.rows, device=device)
        self._num_chunk_columns = max(1, newcomers.chunk_tokens // len(self._ids))
        self._num_done = 0
        self.num_chunks = 0  # put in so far
        self._cache: Any = None
        num_top = self.sequences[0].num_prompt_top
        self._scores = None if num_top is None else PromptScores(self._ids, num_top)

    @property
    def num_cache_bytes(self) -> int:
        """What its keys and values take so far."""
        return caches.num_bytes(self._cache)

    def step(self, decoder: Decoder) -> None:
        """Puts in the next chunk, or all at once where that is how the model must be told."""
        width = self._ids.shape[1]
        in_chunks = decoder.turn is None or width <= decoder.turn
        end = min(self._num_done + self._num_chunk_columns, width) if in_chunks else width
        inputs = self._ids[:, self._num_done : end], self._mask[:, :end], self._cache
        if self._scores is None:
            logits, self._cache = decoder.forward(*inputs, self._adapters)
        else:
            columns, self._cache = decoder.forward_columns(*inputs, self._adapters)
            self._scores.add(columns, self._num_done)
            logits = columns[:, -1]
        self._num_done = end
        self.num_chunks += 1
        if end == width:
            self.logits = logits[self._rows]

    def scores(self) -> Iterator[tuple[Sequence, tuple[Score, ...]]]:
        """What each sequence's prompt scores, where that is wanted, once the prefill is done."""
        if self._scores is not None:
            for sequence, row in zip(self.sequences, self._rows.tolist(), strict=True):
                yield sequence, self._scores.of(row, sequence.num_context_tokens)

    def arrivals(self) -> Arrivals:
        """The sequences on their way into the batch, once the prefill is done; it is used up."""
        return Arrivals(self.sequences, self._rows.tolist(), self._mask, self._cache)


def _prompt(sequence: Sequence) -> Prompt:
    return sequence.adapter, sequence.context


def _padded(prompts: list[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask `(prompts, longest)`, the shorter ones padded at their left."""
    width = max(map(len, prompts))
    padding = [width - len(prompt) for prompt in prompts]
    ids = [[0] * left + list(prompt) for left, prompt in zip(padding, prompts, strict=True)]
    starts = torch.tensor(padding, device=device)[:, None]
    mask = (torch.arange(width, device=device) >= starts).long()
    return torch.tensor(ids, device=device), mask
