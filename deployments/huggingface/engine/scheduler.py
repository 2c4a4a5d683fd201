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
from deployments.huggingface.engine import cache as caches
from deployments.huggingface.engine.batch import Arrivals, Batch
from deployments.huggingface.engine.capacity import Capacity, num_batch_tokens
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.engine.masking import masked
from deployments.huggingface.engine.penalties import adjusted
from deployments.huggingface.engine.prefill import Newcomers, Prefill
from deployments.huggingface.engine.queue import Queue
from deployments.huggingface.engine.sampling import NO_TOKEN, sample
from deployments.huggingface.engine.sequence import Sequence

logger = logging.getLogger(__name__)

# A step without a chunk of a prompt moves as many bytes as the weights have. That is less work than
# a chunk, which multiplies each of them with all its tokens; beside one, a part of that moves.
SHARE_BESIDE_A_CHUNK = 8

FAILED = "The model failed while it was generating this answer."


class Scheduler:
    """Takes sequences from the queue as they fit, and runs them to their ends.

    `running` are those taken from the queue: in the prefill, on their way from it into the batch,
    or in the batch.
    """

    def __init__(self, decoder: Decoder, queue: Queue, capacity: Capacity) -> None:
        self.running: list[Sequence] = []
        self._decoder = decoder
        self._queue = queue
        self._capacity = capacity
        asked = capacity.max_move_bytes
        self._max_move_bytes = decoder.weight_bytes if asked is None else asked
        self._prefill: Prefill | None = None
        self._arrivals: Arrivals | None = None
        self._batch = self._no_batch()

    @property
    def num_batch_tokens(self) -> int:
        """What the running sequences reserve of the capacity."""
        return num_batch_tokens(self.running)

    @property
    def num_cache_bytes(self) -> int:
        """What the keys and values of prefill and batch take now."""
        prefill = self._prefill.num_cache_bytes if self._prefill else 0
        arrivals = caches.num_bytes(self._arrivals.cache) if self._arrivals else 0
        return prefill + arrivals + caches.num_bytes(self._batch.cache)

    def step(self) -> None:
        """One chunk of prefill, if any is due, or the move of keys and values that is due, as far
        as it costs no more; then one token for every sequence in the batch. Chunk and token are
        one pass over the weights where that is what a step costs.

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
        if self._prefill is None and self._arrivals is None:
            self._admit()
        if self._capacity.shares_passes:
            self._take_one_pass()
            return
        if self._prefill is not None and self._moves_little():
            self._read(self._prefill)
            self._begin_answers()
            if self._moves_little():
                self._move()
        else:
            self._move()
        self._turn()
        if self._batch.sequences:
            sequences = self._batch.sequences
            self._choose(sequences, self._batch.step(self._decoder))
            self._let_go()

    def _moves_little(self) -> bool:
        """Whether what is to move does not show beside a chunk."""
        num_bytes = self._batch.num_move_bytes(self._arrivals)
        return num_bytes <= self._max_move_bytes // SHARE_BESIDE_A_CHUNK

    def _move(self) -> None:
        self._batch.move(self._arrivals)
        if self._arrivals is not None and not self._arrivals.sequences:
            self._arrivals = None

    def _take_one_pass(self) -> None:
        self._turn()
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
        self._begin_answers()
        if self._arrivals is not None:
            self._batch.join(self._arrivals)
        self._let_go()

    def _turn(self) -> None:
        """Lets the model read anew those whose next token makes them longer than what it remembers
        of them is good for."""
        turn = self._decoder.turn
        if turn is None or not self._decoder.forgets:
            return
        turning = [s for s in self._batch.sequences if s.num_context_tokens == turn + 1]
        if turning:
            self._batch.keep([r for r, s in enumerate(self._batch.sequences) if s not in turning])
            self.running = [s for s in self.running if s not in turning]
            self._queue.put_back(turning)

    def _forget(self) -> None:
        """Drops what the model knows of the sequences; they know enough to begin again."""
        self._prefill = self._arrivals = None
        self._batch = self._no_batch()

    def _no_batch(self) -> Batch:
        return Batch.empty(self._decoder.device, self._max_move_bytes)

    def _let_go(self) -> None:
        """Frees what ended or cancelled sequences hold."""
        going = sum(sequence.ended for sequence in self.running)
        if going:
            self._queue.pace.end(going)
            self.running = [s for s in self.running if not s.ended]
        if self._prefill is not None and all(s.ended for s in self._prefill.sequences):
            self._prefill = None
        if self._arrivals is not None:
            self._arrivals.let_go()
            self._arrivals = self._arrivals if self._arrivals.sequences else None
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

    def _read(self, prefill: Prefill) -> None:
        if not self._attempt(lambda: prefill.step(self._decoder), prefill.sequences):
            self._prefill = None

    def _begin_answers(self) -> None:
        """Once the prefill is done, its sequences have their first tokens, and go to the batch."""
        prefill = self._prefill
        if prefill is None or prefill.logits is None:
            return
        for sequence, scores in prefill.scores():
            self._attempt(partial(sequence.take_scores, scores), [sequence])
        self._choose(prefill.sequences, prefill.logits)
        self._prefill, self._arrivals = None, prefill.arrivals()
        self._let_go()

    def _choose(self, sequences: list[Sequence], raw: Tensor) -> None:
        """Gives each sequence its next token, by its row of logits `(batch, vocab)`."""
        # Before the wait for the device: it is still at the logits.
        raw = masked([s.matcher for s in sequences], raw.float())
        samplers = [s.sampler for s in sequences]
        logits = adjusted(samplers, [s.banned for s in sequences], raw)
        for sequence, sampled in zip(sequences, sample(samplers, logits, raw), strict=True):
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
