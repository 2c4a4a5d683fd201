"""How far the start of a backend has come, for those who wait for it.

Told by the backend to a `Report`, which keeps or passes it on; nothing here knows to whom.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of weights, and how much of it has been read."""

    file: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What a backend is doing before it can answer. `shards` are there once the weights' files are
    known, in the order in which they are read."""

    stage: str
    shards: tuple[Shard, ...] = ()

    @property
    def done_bytes(self) -> int:
        """Bytes of weights read so far."""
        return sum(shard.done_bytes for shard in self.shards)

    @property
    def total_bytes(self) -> int:
        """Bytes of weights to read; 0 while that is not known."""
        return sum(shard.total_bytes for shard in self.shards)

    @property
    def percent(self) -> float | None:
        """How much of the weights has been read, from 0 to 100; None while that is not known."""
        if not self.total_bytes:
            return None
        return round(100 * self.done_bytes / self.total_bytes, 1)


# Called from any thread; returns at once.
Report = Callable[[Progress], None]


def unreported(progress: Progress) -> None:
    """The report of who has nobody to tell."""
