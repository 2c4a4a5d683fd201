"""The thread that owns the model: one answer after the other, in order of arrival.

It knows sequences and logits only. What a request looks like, how tokens are chosen and where
text goes is not its business, so another way of scheduling replaces this file alone.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from deployments.errors import BackendUnavailable
from deployments.huggingface.sequence import Sequence

logger = logging.getLogger(__name__)

STOPPED = "The model has been stopped."
BROKEN = "The model's engine has stopped working; its replica will be replaced."
FAILED = "The model failed while it was generating this answer."


class Engine:
    """Generates sequences with a model. All methods may be called from any thread."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._options = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
        self._changed = threading.Condition()
        self._waiting: deque[Sequence] = deque()
        self._running: Sequence | None = None
        self._stopping = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="huggingface-engine", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def num_running(self) -> int:
        """How many sequences the model is working on."""
        return int(self._running is not None)

    @property
    def num_waiting(self) -> int:
        """How many sequences wait for their turn."""
        return len(self._waiting)

    def submit(self, sequences: Iterable[Sequence]) -> None:
        """Puts sequences at the end of the queue. Raises: BackendUnavailable."""
        with self._changed:
            self.check()
            self._waiting.extend(sequences)
            self._changed.notify()

    def cancel(self, sequences: Iterable[Sequence]) -> None:
        """Frees what the sequences hold: waiting ones never start, a running one makes no further
        token. Those that have finished are left alone."""
        with self._changed:
            for sequence in sequences:
                sequence.cancelled = True
            self._waiting = deque(s for s in self._waiting if not s.cancelled)

    def check(self) -> None:
        """Returns while sequences can be generated. Raises: BackendUnavailable."""
        if self._ended or self._stopping:
            raise BackendUnavailable(STOPPED if self._stopping else BROKEN)

    def stop(self) -> None:
        """Ends the thread after the token it is at, and fails what is left. Waits for it."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while (sequence := self._next()) is not None:
                    self._generate(sequence)
        finally:
            self._end()

    def _next(self) -> Sequence | None:
        """The next sequence, waiting for one; None when the engine is to stop."""
        with self._changed:
            self._running = None
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if self._stopping:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def _generate(self, sequence: Sequence) -> None:
        try:
            self._decode(sequence)
        # The engine's edge: whatever a model, a tokenizer or a device raises is one request's
        # misfortune, not the others'.
        except Exception as exc:
            logger.exception("A generation failed")
            sequence.fail(BackendUnavailable(FAILED))
            if isinstance(exc, torch.AcceleratorError):
                raise  # the device is lost to this process: end, so that health checks see it

    def _decode(self, sequence: Sequence) -> None:
        ids, cache = sequence.prompt_ids, None
        while not (sequence.finished or sequence.cancelled or self._stopping):
            logits, cache = self._forward(ids, cache)
            ids = (sequence.advance(logits),)
        if self._stopping:
            sequence.fail(BackendUnavailable(STOPPED))

    def _forward(self, ids: tuple[int, ...], cache: Any) -> tuple[Tensor, Any]:
        """The logits `(vocab,)` after `ids`, and the cache that now includes them."""
        output = self._model(
            input_ids=torch.tensor([ids], device=self._model.device),
            past_key_values=cache,
            use_cache=True,
            **self._options,
        )
        return output.logits[0, -1], output.past_key_values

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            left = [s for s in (self._running, *self._waiting) if s is not None]
            self._running = None
            self._waiting.clear()
        error = STOPPED if self._stopping else BROKEN
        for sequence in left:
            sequence.fail(BackendUnavailable(error))
