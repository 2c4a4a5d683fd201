"""Whether a model gives each row of a batch what it gives it alone: found out before it serves.

Some architectures mix rows, count padding or keep states that rows cannot join; which ones changes
with every release of transformers. So each model is asked.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Rows
from typing import Any

import torch
from torch import Tensor

from deployments.errors import RoundhouseError
from deployments.huggingface.engine.batch import Batch
from deployments.huggingface.engine.cache import is_editable
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.engine.generation import Choice, Delta, Sampling, Stopping
from deployments.huggingface.engine.prefill import Newcomers, Prefill
from deployments.huggingface.engine.sampling import Sampled
from deployments.huggingface.engine.sequence import Sequence
from deployments.huggingface.loading import attention
from deployments.huggingface.protocol.plan import TextModel

NUM_STEPS = 3
WHOLE = 2**30
PROMPT_LENGTHS = (3, 19, 9)
# Of the logits' standard deviation. In half precision the order of summation, which depends on the
# size of the batch, is well visible.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 0.05}
DEFAULT_TOLERANCE = 0.25
# LLM.int8() multiplies in half precision the columns that stand out in any row of the batch, so a
# row is rounded otherwise in other company (https://arxiv.org/abs/2208.07339, section 3).
INT8_TOLERANCE = 0.5
# What models raise for masks and shapes that they cannot take.
CANNOT = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)


class Nobody:
    """A sink for what nobody asked for."""

    def add(self, delta: Delta) -> None:
        """Drops it."""

    def fail(self, error: RoundhouseError) -> None:
        """Drops it."""


class Trial:
    """A batch that is told what to say, and what the model said to each of its sequences."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._batch = Batch.empty(decoder.device)
        self.said: dict[Sequence, list[Tensor]] = {}

    def enter(self, sequences: Iterable[Sequence], chunk_tokens: int = WHOLE) -> None:
        """Prefills sequences and lets them join."""
        newcomers = Newcomers(chunk_tokens)
        for sequence in sequences:
            newcomers.add(sequence)
        prefill = Prefill(newcomers, self._decoder.device)
        while prefill.logits is None:
            prefill.step(self._decoder)
        self._note(prefill.sequences, prefill.logits)
        self._batch.join(prefill.arrivals())

    def step(self) -> None:
        """Every sequence takes a step."""
        self._note(self._batch.sequences, self._batch.step(self._decoder))

    def leave(self, sequence: Sequence) -> None:
        """One sequence goes."""
        rows = [row for row, s in enumerate(self._batch.sequences) if s is not sequence]
        self._batch.keep(rows)

    def is_editable(self, model_config: object) -> bool:
        """Whether the model's cache is one that rows can join and leave."""
        return is_editable(self._batch.cache, model_config)

    def _note(self, sequences: list[Sequence], logits: Tensor) -> None:
        for sequence, row in zip(sequences, logits.float(), strict=True):
            said = self.said.setdefault(sequence, [])
            said.append(row)
            sequence.take(Sampled(len(said)))


def settle(decoder: Decoder, model: Any, text_model: TextModel, attention_is_free: bool) -> bool:
    """Whether the model may serve several sequences at a time. Where the attention is free to
    choose, it is made eager if the fused one is not exact. Raises: what the model raises for one.
    """
    with torch.inference_mode():
        is_free = attention_is_free and attention.can_be_eager(model)
        if is_free and not _is_like_eager(decoder, model, text_model):
            attention.switch(model, "eager", "the fused one gives other logits")
            is_free = False
        batched = _can_batch(decoder, model, text_model)
        if batched or not is_free:
            return batched
        attention.switch(model, "eager", "with the fused one it cannot be batched")
        if not _can_batch(decoder, model, text_model):
            attention.switch(model, "sdpa", "that does not help")
            return False
        return True


def _is_like_eager(decoder: Decoder, model: Any, text_model: TextModel) -> bool:
    def say() -> Tensor:
        trial = Trial(decoder)
        sequence = _sequence(text_model, max(PROMPT_LENGTHS), None)
        trial.enter([sequence])
        return trial.said[sequence][0]

    return agree(*attention.with_both(model, say), tolerance(model))


def tolerance(model: Any) -> float:
    """How much of the logits' standard deviation may be rounding, in the model's precision."""
    if getattr(model, "is_loaded_in_8bit", False):
        return INT8_TOLERANCE
    return TOLERANCES.get(getattr(model, "dtype", None), DEFAULT_TOLERANCE)


def can_batch(
    decoder: Decoder, model: Any, text_model: TextModel, adapters: Rows[str | None]
) -> bool:
    """Whether rows with these adapters can be batched. Raises: what the model raises for one."""
    with torch.inference_mode():
        return _can_batch(decoder, model, text_model, adapters)


def _can_batch(
    decoder: Decoder, model: Any, text_model: TextModel, adapters: Rows[str | None] = (None,)
) -> bool:
    rows = [adapters[n % len(adapters)] for n in range(len(PROMPT_LENGTHS))]
    asked = list(zip(PROMPT_LENGTHS, rows, strict=True))
    alone = [_alone(decoder, _sequence(text_model, *one)) for one in asked]
    expected = [said for trial in alone for said in trial.said.values()]
    try:
        if not all(trial.is_editable(getattr(model, "config", None)) for trial in alone):
            return False
        got = _together(decoder, [_sequence(text_model, *one) for one in asked])
    except CANNOT:
        return False
    return all(
        agree(one, other, tolerance(model))
        for rows, others in zip(expected, got, strict=True)
        for one, other in zip(rows, others, strict=False)  # who left early was told less
    )


def _sequence(text_model: TextModel, length: int, adapter: str | None) -> Sequence:
    limits = text_model.limits
    length = max(1, min(length, limits.max_model_len - NUM_STEPS - 1))
    # Far apart in the vocabulary, and another beginning for another length.
    ids = tuple((7919 * (length + n) + n) % limits.vocab_size for n in range(length))
    stopping = Stopping(max_tokens=NUM_STEPS + 2)
    choice = Choice(0, ids, Sampling(), stopping, adapter=adapter)
    return Sequence(choice, text_model.vocabulary, Nobody())


def _alone(decoder: Decoder, sequence: Sequence) -> Trial:
    trial = Trial(decoder)
    trial.enter([sequence])
    for _ in range(NUM_STEPS):
        trial.step()
    return trial


def _together(decoder: Decoder, sequences: list[Sequence]) -> list[list[Tensor]]:
    """What is said to three sequences: two begin together, one joins in chunks, one leaves."""
    short, long, late = sequences
    trial = Trial(decoder)
    trial.enter([short, long])
    trial.step()
    trial.enter([late], chunk_tokens=2)
    trial.step()
    trial.leave(long)
    trial.step()
    return [trial.said[sequence] for sequence in sequences]


def agree(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether two rows `(vocab,)` are the same but for rounding; NaN agrees with nothing."""
    return bool(torch.isclose(one, other, rtol=0, atol=tolerance * float(one.std())).all())
