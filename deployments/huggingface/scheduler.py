"""Which sequences take the next step: the newcomers by a chunk of prompt, the others by a token.

For one thread. It knows sequences and logits only: how text is made of tokens and where it goes is
not its business.
"""

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from deployments.errors import BackendUnavailable, RoundhouseError, WeightsLost
from deployments.huggingface import cache as caches
from deployments.huggingface.batch import Batch
from deployments.huggingface.capacity import Capacity, num_batch_tokens
from deployments.huggingface.decoder import Decoder
from deployments.huggingface.masking import masked
from deployments.huggingface.prefill import Newcomers, Prefill
from deployments.huggingface.queue import Queue
from deployments.huggingface.sampling import NO_TOKEN, sample
from deployments.huggingface.sequence import Sequence

logger = logging.getLogger(__name__)

FAILED = "The model failed while it was generating this answer."


class Scheduler:
    """Takes sequences from the queue as they fit, and runs them to their ends.

    `running` are those taken from the queue: in the prefill or in the batch.
    """

    def __init__(self, decoder: Decoder, queue: Queue, capacity: Capacity) -> None:
        self.running: list[Sequence] = []
        self._decoder = decoder
        self._queue = queue
        self._capacity = capacity
        self._prefill: Prefill | None = None
        self._batch = Batch.empty(decoder.device)

    @property
    def num_batch_tokens(self) -> int:
        """What the running sequences reserve of the capacity."""
        return num_batch_tokens(self.running)

    @property
    def num_cache_bytes(self) -> int:
        """What the keys and values of prefill and batch take now."""
        prefill = self._prefill.num_cache_bytes if self._prefill else 0
        return prefill + caches.num_bytes(self._batch.cache)

    def step(self) -> None:
        """One chunk of prefill, if any is due, then one token for every sequence in the batch; both
        in one pass over the weights where that is what a step costs.

        Raises: torch.AcceleratorError, after which the device is lost; WeightsLost.
        """
        if not self._attempt(self._step):
            self._forget()

    def fail(self, error: RoundhouseError) -> None:
        """Ends all that runs."""
        running, self.running = self.running, []
        self._forget()
        for sequence in running:
            sequence.fail(error)

    def _step(self) -> None:
        self._let_go()
        if self._prefill is None:
            self._admit()
        if self._capacity.shares_passes:
            self._take_one_pass()
            return
        if self._prefill is not None and self._prefill.logits is not None:
            self._join(self._prefill)
        elif self._prefill is not None:
            self._put_in_chunk(self._prefill)
        if self._batch.sequences:
            sequences = self._batch.sequences
            self._choose(sequences, self._batch.step(self._decoder))
            self._let_go()

    def _take_one_pass(self) -> None:
        prefill, sequences, raw = self._prefill, self._batch.sequences, []

        def decode() -> None:
            raw.append(self._batch.step(self._decoder))

        if prefill is not None and sequences:
            self._decoder.both(decode, partial(self._read, prefill))
        elif prefill is not None:
            self._read(prefill)
        elif sequences:
            decode()
        for logits in raw:
            self._choose(sequences, logits)
        if self._prefill is not None and self._prefill.logits is not None:
            self._begin_answers(self._prefill, self._prefill.logits)
            self._join(self._prefill)
        self._let_go()

    def _forget(self) -> None:
        """Drops what the model knows of the sequences; they know enough to begin again."""
        self._prefill = None
        self._batch = Batch.empty(self._decoder.device)

    def _let_go(self) -> None:
        """Frees what ended or cancelled sequences hold."""
        going = sum(sequence.ended for sequence in self.running)
        if going:
            self._queue.pace.end(going)
            self.running = [s for s in self.running if not s.ended]
        if self._prefill is not None and all(s.ended for s in self._prefill.sequences):
            self._prefill = None
        self._batch.keep([r for r, s in enumerate(self._batch.sequences) if not s.ended])

    def _admit(self) -> None:
        """Takes the first of the queue, and those behind it that go into the same chunk."""
        newcomers = Newcomers(self._capacity.chunk_tokens(len(self._batch.sequences)))
        while (sequence := self._queue.take(partial(self._fits, newcomers))) is not None:
            newcomers.add(sequence)
            self.running = [*self.running, sequence]
        if newcomers.sequences:
            self._prefill = Prefill(newcomers, self._decoder.device)

    def _fits(self, newcomers: Newcomers, sequence: Sequence) -> bool:
        if self.running and sequence.suspects is not self.running[0].suspects:
            return False
        return self._capacity.fits([*self.running, sequence]) and newcomers.has_room(sequence)

    def _put_in_chunk(self, prefill: Prefill) -> None:
        self._read(prefill)
        if self._prefill is not None and prefill.logits is not None:
            self._begin_answers(prefill, prefill.logits)
            # A long prompt's keys and values take as long to move as a chunk to read: streams that
            # run do not wait for both in one step.
            if prefill.num_chunks == 1 or not self._batch.sequences:
                self._join(prefill)

    def _read(self, prefill: Prefill) -> None:
        if not self._attempt(lambda: prefill.step(self._decoder), prefill.sequences):
            self._prefill = None

    def _begin_answers(self, prefill: Prefill, logits: Tensor) -> None:
        for sequence, scores in prefill.scores():
            self._attempt(partial(sequence.take_scores, scores), [sequence])
        self._choose(prefill.sequences, logits)

    def _join(self, prefill: Prefill) -> None:
        self._batch.join(prefill.batch())
        self._prefill = None
        self._let_go()

    def _choose(self, sequences: list[Sequence], raw: Tensor) -> None:
        """Gives each sequence its next token, by its row of logits `(batch, vocab)`."""
        # Before the wait for the device: it is still at the logits.
        raw = masked([s.matcher for s in sequences], raw.float())
        logits = raw.clone() if any(s.adjusts for s in sequences) else raw
        for sequence, row in zip(sequences, logits, strict=True):
            if sequence.adjusts:
                self._attempt(partial(sequence.adjust, row), [sequence])
        for sequence, sampled in zip(
            sequences, sample([s.sampler for s in sequences], logits, raw), strict=True
        ):
            if sampled.token == NO_TOKEN:
                logger.error("The model gave no numbers for an answer: its dtype may be too small")
                sequence.fail(BackendUnavailable(FAILED))
            elif not sequence.ended:
                self._attempt(partial(sequence.take, sampled), [sequence])

    def _attempt(self, action: Callable[[], None], sequences: list[Sequence] | None = None) -> bool:
        """Whether `action` succeeded. If not, its sequence has failed, or, if it was for several,
        they are to run once more, in halves. None is for all that run."""
        try:
            action()
        except (torch.AcceleratorError, WeightsLost):
            raise  # device or weights are lost to this process: end, so that health checks see it
        # The engine's edge: whatever a model, a tokenizer or a device raises is one request's
        # misfortune, not the others'.
        except Exception:
            logger.exception("A generation failed")
            involved = self.running if sequences is None else sequences
            self._blame([s for s in involved if not s.ended])
            return False
        return True

    def _blame(self, sequences: list[Sequence]) -> None:
        """Fails a sequence that was alone. Of several each half runs again by itself, from where
        it was: whose fault it was is found in a few steps, and too large a batch is made smaller,
        while the others keep each other company."""
        if len(sequences) == 1:
            sequences[0].fail(BackendUnavailable(FAILED))
            return
        middle = len(sequences) // 2
        for half in (sequences[:middle], sequences[middle:]):
            suspects = object()
            for sequence in half:
                sequence.suspects = suspects
        self.running = [s for s in self.running if s not in sequences]
        self._queue.put_back(sequences)
