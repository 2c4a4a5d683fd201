"""The thread that owns the model, and what callers may ask of it from other threads."""

import logging
import threading
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

import torch

from deployments.errors import BackendUnavailable, WeightsLost
from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.engine.queue import Queue
from deployments.huggingface.engine.scheduler import Scheduler
from deployments.huggingface.engine.sequence import Sequence

if TYPE_CHECKING:
    from deployments.huggingface.adapters.rows import Adapters

logger = logging.getLogger(__name__)

STOPPED = "The model has been stopped."
BROKEN = "The model's engine has stopped working; its replica will be replaced."


class Engine:
    """Generates sequences with a model. All methods may be called from any thread."""

    def __init__(
        self, model: Any, capacity: Capacity, adapters: Optional["Adapters"] = None
    ) -> None:
        self._capacity = capacity
        self._queue = Queue(capacity.max_queued_requests)
        self._scheduler: Scheduler | None = Scheduler(
            Decoder(model, adapters), self._queue, capacity
        )
        self._thread = threading.Thread(target=self._run, name="huggingface-engine", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def num_running(self) -> int:
        """How many sequences the model is working on."""
        return len(self._scheduler.running) if self._scheduler else 0

    @property
    def num_waiting(self) -> int:
        """How many sequences wait for their turn."""
        return len(self._queue)

    @property
    def num_batch_tokens(self) -> int:
        """How much of `max_batch_tokens` the running sequences have reserved."""
        return self._scheduler.num_batch_tokens if self._scheduler else 0

    @property
    def kv_use(self) -> float:
        """The share of `max_batch_tokens` that running sequences have reserved, 0 to 1."""
        return min(1.0, self.num_batch_tokens / self._capacity.max_batch_tokens)

    @property
    def num_cache_bytes(self) -> int:
        """What the keys and values take, spare columns included."""
        return self._scheduler.num_cache_bytes if self._scheduler else 0

    def submit(self, sequences: Iterable[Sequence]) -> None:
        """Puts the sequences of one request at the end of the queue.

        Raises: ContextTooLong, BackendOverloaded, BackendUnavailable.
        """
        sequences = list(sequences)
        self._capacity.check(sequences)
        running = self._scheduler.running if self._scheduler else []
        self._queue.put(sequences, partial(self._capacity.num_admitted, running))

    def cancel(self, sequences: Iterable[Sequence]) -> None:
        """Frees what the sequences hold: waiting ones never start, running ones are gone at the
        next step. Those that have finished are left alone."""
        self._queue.cancel(sequences)

    def check(self) -> None:
        """Returns while sequences can be generated. Raises: BackendUnavailable."""
        if self._queue.closed is not None:
            raise BackendUnavailable(self._queue.closed.message)

    def stop(self) -> None:
        """Ends the thread after the step it is at, and fails what is left. Waits for it."""
        self._queue.close(BackendUnavailable(STOPPED))
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self._scheduler = None  # and with it the model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _run(self) -> None:
        scheduler = self._scheduler
        assert scheduler is not None
        try:
            with torch.inference_mode():
                while self._queue.closed is None and (scheduler.running or self._queue.wait()):
                    scheduler.step()
        except WeightsLost as exc:
            logger.error("%s", exc.message)
            self._queue.close(exc)
        finally:
            self._end(scheduler)

    def _end(self, scheduler: Scheduler) -> None:
        self._queue.close(BackendUnavailable(BROKEN))  # unless it is closed: a stop
        error = self._queue.closed or BackendUnavailable(BROKEN)
        for sequence in self._queue.clear():
            sequence.fail(error)
        scheduler.fail(error)
