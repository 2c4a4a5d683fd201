"""The sequences that take every step together, and what the model remembers of them."""

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deployments.huggingface.engine import cache as caches
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.engine.room import Size
from deployments.huggingface.engine.sequence import Sequence

# All that is kept moves in so many steps, also where that is more than `max_move_bytes` in each: a
# step reads all of it anyway.
MOST_MOVES = 8
# The mask of so many steps is made at once: it is the same each time, but for one column of ones.
COLUMNS_AHEAD = 64


@dataclass
class Arrivals:
    """Sequences whose prompts have been read, on their way into the batch: sequence n has row
    `rows[n]` of mask and cache, as `Batch` has them. Several may have the same."""

    sequences: list[Sequence]
    rows: list[int]
    mask: Tensor
    cache: Any

    @property
    def row_bytes(self) -> int:
        """What one of them takes."""
        return caches.num_bytes(self.cache) // max(1, len(self.mask))

    def let_go(self) -> None:
        """Forgets those that have ended."""
        pairs = zip(self.sequences, self.rows, strict=True)
        left = [(sequence, row) for sequence, row in pairs if not sequence.ended]
        self.sequences, self.rows = [s for s, _ in left], [row for _, row in left]

    def take(self, count: int) -> tuple[list[Sequence], Tensor]:
        """The first of them, and their rows; they are gone from here."""
        taken, rows = self.sequences[:count], self.rows[:count]
        self.sequences, self.rows = self.sequences[count:], self.rows[count:]
        return taken, torch.tensor(rows, device=self.mask.device)


@dataclass
class Batch:
    """Row r of mask and cache is `sequences[r]`, without its newest token: that is the next input.

    `mask` `(batch, columns)` is 0 where a row is padded, always at its left. Without sequences
    there is no cache. `max_move_bytes` are what `move` moves at a time, if it can be so few.
    """

    sequences: list[Sequence]
    mask: Tensor
    cache: Any
    max_move_bytes: int
    _ahead: Tensor | None = None  # the mask with columns to come, of which `mask` is a part

    @classmethod
    def empty(cls, device: torch.device, max_move_bytes: int = 0) -> "Batch":
        """No rows."""
        mask = torch.ones((0, 0), dtype=torch.long, device=device)
        return cls([], mask, None, max_move_bytes)

    def step(self, decoder: Decoder) -> Tensor:
        """Puts in each row's newest token; returns the logits `(batch, vocab)` of the next."""
        tokens = [[sequence.last_token] for sequence in self.sequences]
        mask = self._mask_with_a_column()
        ids = torch.tensor(tokens, device=mask.device)
        adapters = [sequence.adapter for sequence in self.sequences]
        logits, self.cache = decoder.forward(ids, mask, self.cache, adapters)
        self.mask = mask
        return logits

    def num_move_bytes(self, arrivals: Arrivals | None = None) -> int:
        """How much has to move before there is room for the columns to come, and for arrivals and
        until these are in."""
        if not self.sequences or (arrivals is None and self._has_room_for_many()):
            return 0
        missing = caches.num_missing_bytes(self.cache, self._size_with(arrivals))
        return missing + (arrivals.row_bytes * len(arrivals.sequences) if arrivals else 0)

    def move(self, arrivals: Arrivals | None) -> None:
        """Makes room for the columns to come, and for arrivals, then takes these over: as far as
        one step may. Without rows it takes over all there is, which then does not move."""
        num_bytes = self.num_move_bytes(arrivals)
        if arrivals is not None and num_bytes <= self.max_move_bytes:
            self.join(arrivals)
        elif num_bytes:
            self._move_a_part(arrivals)

    def _move_a_part(self, arrivals: Arrivals | None) -> None:
        size = self._size_with(arrivals)
        sizes = caches.sizes(self.cache, size)
        part = sum(sizes) * -(-len(sizes) // MOST_MOVES) // max(1, len(sizes))
        max_bytes = max(self.max_move_bytes, part)
        num_moved = caches.make_room(self.cache, size, max_bytes)
        if arrivals is None or caches.num_missing_bytes(self.cache, size):
            return
        count = max(max_bytes - num_moved, 0) // max(1, arrivals.row_bytes)
        self._take(arrivals, count or (0 if num_moved else 1))

    def join(self, arrivals: Arrivals) -> None:
        """Takes over all arrivals at once, a layer at a time."""
        if self.sequences:
            self._take(arrivals, len(arrivals.sequences))
            return
        self.cache, num_rows = arrivals.cache, len(arrivals.mask)
        self.sequences, rows = arrivals.take(len(arrivals.sequences))
        self.mask, self._ahead = arrivals.mask[rows], None
        if rows.tolist() != list(range(num_rows)):
            caches.select(self.cache, rows)
        caches.be_roomy(self.cache)

    def keep(self, rows: Rows[int]) -> None:
        """Lets go of all other rows, and of the columns that are padding in every row kept."""
        if len(rows) == len(self.sequences):
            return
        rows = _closed_up(rows)
        self.sequences = [self.sequences[row] for row in rows]
        if not rows:
            self.mask, self.cache = self.mask[:0, :0], None
            return
        self._ahead = None
        width = max(sequence.num_context_tokens - 1 for sequence in self.sequences)
        self.mask = self.mask[torch.tensor(rows, device=self.mask.device), -width:]
        caches.keep(self.cache, rows, width)

    def _mask_with_a_column(self) -> Tensor:
        width = self.mask.shape[1] + 1
        if self._ahead is None or self._ahead.shape[1] < width:
            self._ahead = torch.nn.functional.pad(self.mask, (0, COLUMNS_AHEAD), value=1)
        return self._ahead[:, :width]

    def _has_room_for_many(self) -> bool:
        """Whether no move is due, however many bytes it would be of: so it is at most steps."""
        num_rows, width = self.mask.shape
        return not caches.num_missing_bytes(self.cache, Size(num_rows, width, MOST_MOVES))

    def _size_with(self, arrivals: Arrivals | None) -> Size:
        num_rows, width = self.mask.shape
        if arrivals is not None:
            num_rows += len(arrivals.sequences)
            width = max(width, arrivals.mask.shape[1])
        size = Size(num_rows, width)
        # Columns are left for each of the steps in which room for more is made.
        at_once = sum(caches.sizes(self.cache, size)) <= self.max_move_bytes
        return size if at_once else Size(num_rows, width, MOST_MOVES)

    def _take(self, arrivals: Arrivals, count: int) -> None:
        if not count:
            return
        sequences, rows = arrivals.take(count)
        caches.join(self.cache, arrivals.cache, rows, is_last=not arrivals.sequences)
        mask = arrivals.mask[rows]
        width = max(self.mask.shape[1], mask.shape[1])
        self._ahead = None
        self.mask = torch.cat([_widened(self.mask, width), _widened(mask, width)])
        self.sequences = self.sequences + sequences


def _closed_up(rows: Rows[int]) -> list[int]:
    """The same rows, the last ones of them in the places of those that are missing."""
    kept = set(rows)
    behind = sorted(row for row in kept if row >= len(kept))
    return [row if row in kept else behind.pop() for row in range(len(kept))]


def _widened(mask: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(mask, (width - mask.shape[1], 0))
