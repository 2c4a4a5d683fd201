"""How much a model may have in hand at a time."""

from collections.abc import Iterable
from dataclasses import dataclass

from deployments.errors import ContextTooLong
from deployments.huggingface.engine.sequence import Sequence

UNLIMITED = 2**62


@dataclass(frozen=True, slots=True)
class Capacity:
    """`max_batch_tokens` bounds the columns of keys and values over all rows, padding included.
    Without `mixes_adapters`, those of different adapters do not run together. `shares_passes`: what
    a pass costs is its weights, so that no step takes two. `max_move_bytes`: how much of keys and
    values may move in a step that reads no prompt, where it can be so little; None is as much as
    the weights."""

    max_batch_tokens: int = UNLIMITED
    max_sequences: int = 256
    max_queued_requests: int = 256
    prefill_chunk_tokens: int = 512
    mixes_adapters: bool = True
    shares_passes: bool = False
    max_move_bytes: int | None = None

    def check(self, sequences: Iterable[Sequence]) -> None:
        """Raises: ContextTooLong for what would not even fit alone."""
        longest = _longest(sequences)
        if longest > self.max_batch_tokens:
            raise ContextTooLong(
                f"You requested {longest} tokens of prompt and answer together. However, this "
                f"model has memory for {self.max_batch_tokens}. Please shorten the prompt or the "
                "answer."
            )

    def chunk_tokens(self, num_running: int) -> int:
        """How many tokens of new prompts a step may read while so many sequences take theirs in it:
        the step as a whole keeps to `prefill_chunk_tokens`, but half are always for the prompts."""
        tokens = self.prefill_chunk_tokens
        return max(tokens - num_running, -(-tokens // 2))

    def fits(self, running: list[Sequence]) -> bool:
        """Whether these can run together to their ends."""
        return self._has_room(len(running), _longest(running), {s.adapter for s in running})

    def num_admitted(self, running: list[Sequence], waiting: list[Sequence]) -> int:
        """How many of those that wait, none overtaking, can run beside those that do."""
        longest, adapters = _longest(running), {s.adapter for s in running}
        for count, sequence in enumerate(waiting):
            longest = max(longest, sequence.max_context_tokens)
            adapters.add(sequence.adapter)
            if not self._has_room(len(running) + count + 1, longest, adapters):
                return count
        return len(waiting)

    def _has_room(self, num_rows: int, longest: int, adapters: set[str | None]) -> bool:
        return (
            num_rows <= self.max_sequences
            and num_rows * longest <= self.max_batch_tokens
            and (self.mixes_adapters or len(adapters) <= 1)
        )


def num_batch_tokens(running: list[Sequence]) -> int:
    """What is reserved for sequences: as many columns as the longest may need, in each row."""
    return len(running) * _longest(running)


def _longest(sequences: Iterable[Sequence]) -> int:
    return max((s.max_context_tokens for s in sequences), default=0)
