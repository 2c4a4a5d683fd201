"""The sequences that take every step together, and what the model remembers of them."""

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deployments.huggingface import cache as caches
from deployments.huggingface.decoder import Decoder
from deployments.huggingface.sequence import Sequence


@dataclass
class Batch:
    """Row r of mask and cache is `sequences[r]`, without its newest token: that is the next input.

    `mask` `(batch, columns)` is 0 where a row is padded, always at its left. Without sequences
    there is no cache.
    """

    sequences: list[Sequence]
    mask: Tensor
    cache: Any

    @classmethod
    def empty(cls, device: torch.device) -> "Batch":
        """No rows."""
        return cls([], torch.ones((0, 0), dtype=torch.long, device=device), None)

    def step(self, decoder: Decoder) -> Tensor:
        """Puts in each row's newest token; returns the logits `(batch, vocab)` of the next."""
        tokens = [[sequence.last_token] for sequence in self.sequences]
        mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        ids = torch.tensor(tokens, device=mask.device)
        adapters = [sequence.adapter for sequence in self.sequences]
        logits, self.cache = decoder.forward(ids, mask, self.cache, adapters)
        self.mask = mask
        return logits

    def join(self, other: "Batch") -> None:
        """Takes over the rows of `other`."""
        if not self.sequences:
            self.sequences, self.mask, self.cache = other.sequences, other.mask, other.cache
        elif other.sequences:
            caches.join(self.cache, other.cache)
            width = max(self.mask.shape[1], other.mask.shape[1])
            self.mask = torch.cat([_widened(self.mask, width), _widened(other.mask, width)])
            self.sequences = self.sequences + other.sequences

    def keep(self, rows: Rows[int]) -> None:
        """Lets go of all other rows, and of the columns that are padding in every row kept."""
        if len(rows) == len(self.sequences):
            return
        self.sequences = [self.sequences[row] for row in rows]
        if not rows:
            self.mask, self.cache = self.mask[:0, :0], None
            return
        width = max(sequence.num_context_tokens - 1 for sequence in self.sequences)
        index = torch.tensor(rows, device=self.mask.device)
        self.mask = self.mask[index, -width:]
        caches.select(self.cache, index, width)


def _widened(mask: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(mask, (width - mask.shape[1], 0))
