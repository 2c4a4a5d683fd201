"""Memory for a layer's keys, or its values, with room for more rows and columns than are in use.

A step writes one column, who joins is written where there is room, and who leaves is replaced by
another row: nobody else's states move.
"""

from typing import NamedTuple

import torch
from torch import Tensor

Moves = tuple[Tensor, Tensor]  # rows to write to, and those to take for them from behind

SPARE_COLUMNS = 16
SPARE_SHARE = 8  # one spare column for so many used ones
MOST_WASTE = 4  # more than so many times of what is needed is given back


class Size(NamedTuple):
    """What is to be in use, and how many more columns are to come without a move."""

    num_rows: int
    num_columns: int
    num_more: int = 1


def num_spare(num_columns: int) -> int:
    """How many columns of memory there are to be beyond `num_columns`."""
    return max(SPARE_COLUMNS, num_columns // SPARE_SHARE)


class Room:
    """States `(rows, heads, columns, size)` in the first rows and in some columns of a memory.

    Columns are spare at the right, for steps to come, and at the left, for longer rows that join.
    There, rows in use have zeros or what was padding: finite numbers, of which a mask makes
    nothing, as it would not of NaN.
    """

    _used: Tensor  # the rows in use, with all columns

    def __init__(self, states: Tensor) -> None:
        self._start, self._end = 0, int(states.shape[2])
        self._column_bytes = int(states[:1, :, :1].nbytes)
        self._hold(states, len(states))

    @property
    def states(self) -> Tensor:
        """What is in use."""
        return self._used.narrow(2, self._start, self._end - self._start)

    def has(self, size: Size) -> bool:
        """Whether so many rows and columns can be in use without a move."""
        return size.num_rows <= self._max_rows and size.num_columns <= self._end

    def num_bytes_of(self, size: Size) -> int:
        """What memory of this size takes, spare columns included."""
        num_columns = max(size.num_columns, self._end - self._start)
        return size.num_rows * (num_columns + num_spare(num_columns)) * self._column_bytes

    def num_missing_bytes(self, size: Size) -> int:
        """What a move allocates; 0 if none is due: there is room, and not far too much of it."""
        needed = self.num_bytes_of(size)
        is_enough = self._max_columns - self._end >= size.num_more
        is_wasteful = self._max_rows * self._max_columns * self._column_bytes > MOST_WASTE * needed
        return 0 if is_enough and not is_wasteful and self.has(size) else needed

    def move(self, size: Size) -> None:
        """Takes new memory, in which so many rows and columns can be in use."""
        width = self._end - self._start
        num_columns = max(size.num_columns, width)
        self._resize(size.num_rows, num_columns - width, num_spare(num_columns))

    def append(self, states: Tensor) -> Tensor:
        """Puts the next columns of all rows at the right; returns all that is in use."""
        num_new = states.shape[2]
        if self._end + num_new > self._max_columns:
            width = self._end - self._start + num_new
            self._resize(len(self._used), 0, num_new + num_spare(width))
        self._used.narrow(2, self._end, num_new).copy_(states)
        self._end += num_new
        return self.states

    def add(self, states: Tensor, rows: Tensor) -> None:
        """Puts these rows of `states` below the others, in line with them at the right: for so many
        rows and columns there is memory."""
        top, left = len(self._used), self._end - states.shape[2]
        self._used = self._memory[: top + len(rows)]
        memory = self._used[top:]
        memory[:, :, :left] = 0
        torch.index_select(states, 0, rows, out=memory[:, :, left : self._end])
        self._start = min(self._start, left)

    def keep(self, moves: Moves, num_rows: int, width: int) -> None:
        """Writes rows over others; keeps the first `num_rows`, and the newest `width` columns."""
        to, of = moves
        if len(to):
            # All columns in use, so that nothing of those who leave is left of those who stay.
            self.states[to] = self.states[of]
        self._used, self._start = self._memory[:num_rows], self._end - width

    def _resize(self, num_rows: int, num_left: int, num_right: int) -> None:
        states = self.states
        rows, heads, width, size = states.shape
        memory = states.new_empty((num_rows, heads, num_left + width + num_right, size))
        memory[:rows, :, :num_left] = 0
        memory[:rows, :, num_left : num_left + width] = states
        self._start, self._end = num_left, num_left + width
        self._hold(memory, rows)

    def _hold(self, memory: Tensor, num_rows: int) -> None:
        self._memory, self._used = memory, memory[:num_rows]
        self._max_rows, self._max_columns = int(memory.shape[0]), int(memory.shape[2])
