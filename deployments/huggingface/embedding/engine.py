"""The thread that owns an embedding model."""

import logging
import threading

import torch

from deployments.errors import BackendUnavailable
from deployments.huggingface.embedding.encoder import Encoder
from deployments.huggingface.embedding.jobs import Input, Job, Jobs
from deployments.huggingface.engine.engine import BROKEN, STOPPED

logger = logging.getLogger(__name__)

FAILED = "The model failed while it was embedding this request."


class EmbeddingEngine:
    """Embeds jobs, many at a time. All methods may be called from any thread."""

    def __init__(self, encoder: Encoder, jobs: Jobs) -> None:
        self._encoder: Encoder | None = encoder
        self._jobs = jobs
        self._thread = threading.Thread(target=self._run, name="huggingface-embedder", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def max_batch_tokens(self) -> int:
        """How many tokens one pass may have, padding included; a single text may have more."""
        return self._jobs.max_batch_tokens

    @property
    def num_waiting(self) -> int:
        """How many inputs wait."""
        return len(self._jobs)

    def submit(self, job: Job) -> None:
        """Puts a job at the end of the queue. Raises: BackendOverloaded, BackendUnavailable."""
        self._jobs.put(job)

    def cancel(self, job: Job) -> None:
        """Lets go of what of a job has not begun."""
        self._jobs.cancel(job)

    def check(self) -> None:
        """Returns while jobs are done. Raises: BackendUnavailable."""
        if self._jobs.closed is not None:
            raise BackendUnavailable(self._jobs.closed.message)

    def stop(self) -> None:
        """Ends the thread after the pass it is at, and fails what is left. Waits for it."""
        self._jobs.close(BackendUnavailable(STOPPED))
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self._encoder = None  # and with it the model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _run(self) -> None:
        encoder = self._encoder
        assert encoder is not None
        batch: list[Input] = []
        try:
            while batch := self._jobs.take():
                self._attempt(encoder, batch)
        finally:
            self._jobs.close(BackendUnavailable(BROKEN))  # unless it is closed: a stop
            for one in batch:
                one.job.fail(self._jobs.closed or BackendUnavailable(BROKEN))

    def _attempt(self, encoder: Encoder, batch: list[Input]) -> None:
        """One pass. If it fails, each of its inputs is tried alone, and fails alone."""
        try:
            vectors = encoder.encode([one.ids for one in batch])
        except torch.AcceleratorError:
            raise  # the device is lost to this process: end, so that health checks see it
        # The engine's edge: whatever a model raises is one request's misfortune, not the others'.
        except Exception:
            logger.exception("An embedding failed")
            self._blame(encoder, batch)
            return
        for one, vector in zip(batch, vectors, strict=True):
            one.job.put(one.number, vector)

    def _blame(self, encoder: Encoder, batch: list[Input]) -> None:
        if len(batch) == 1:
            batch[0].job.fail(BackendUnavailable(FAILED))
            return
        for one in batch:
            self._attempt(encoder, [one])
