"""Requests that wait for the embedder: each gets its turn, and none is held up by a large one."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deployments.errors import BackendOverloaded, BackendUnavailable, RoundhouseError
from deployments.huggingface.embedding.encoder import TokenIds
from deployments.huggingface.engine.pace import Pace


class Job:
    """The inputs of one request. `done` is a future of the loop that made it: the vectors
    `(inputs, size)`, in the order of the inputs. The rest is for the engine's thread."""

    def __init__(self, inputs: tuple[TokenIds, ...]) -> None:
        self.inputs = inputs
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Tensor] = self._loop.create_future()
        # Longest first: what is padded together is about as long.
        self.waiting = deque(sorted(range(len(inputs)), key=lambda n: -len(inputs[n])))
        self._vectors: dict[int, Tensor] = {}

    def put(self, number: int, vector: Tensor) -> None:
        """Takes the vector of an input."""
        self._vectors[number] = vector
        if len(self._vectors) == len(self.inputs):
            vectors = torch.stack([self._vectors[n] for n in range(len(self.inputs))])
            self._post(self.done.set_result, vectors)

    def fail(self, error: RoundhouseError) -> None:
        """Ends the job, unless it has ended."""
        self.waiting.clear()
        self._post(self.done.set_exception, error)

    def _post(self, end: Callable[[Any], None], value: Any) -> None:
        def unless_done() -> None:
            if not self.done.done():
                end(value)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to read
            self._loop.call_soon_threadsafe(unless_done)


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a job."""

    job: Job
    number: int

    @property
    def ids(self) -> TokenIds:
        """Its tokens."""
        return self.job.inputs[self.number]


class Jobs:
    """Filled by callers, emptied by the engine's thread. All methods may be called from any."""

    def __init__(self, max_jobs: int, max_batch_tokens: int) -> None:
        self._max_jobs = max_jobs
        self.max_batch_tokens = max_batch_tokens
        self._pace = Pace()
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._closed: BackendUnavailable | None = None

    def __len__(self) -> int:
        """How many inputs wait."""
        with self._changed:
            return sum(len(job.waiting) for job in self._jobs)

    @property
    def closed(self) -> BackendUnavailable | None:
        """Why nothing is taken any more."""
        return self._closed

    def put(self, job: Job) -> None:
        """Puts a job at the end. Raises: BackendOverloaded, BackendUnavailable once closed."""
        with self._changed:
            if self._closed is not None:
                raise BackendUnavailable(self._closed.message)
            if len(self._jobs) >= self._max_jobs:
                raise BackendOverloaded(
                    f"The model's queue is full: {self._max_jobs} requests are waiting. Please "
                    "try again later.",
                    retry_after_s=self._pace.wait_s(sum(len(j.waiting) for j in self._jobs)),
                )
            self._jobs.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Forgets what of a job waits."""
        with self._changed:
            job.waiting.clear()
            with contextlib.suppress(ValueError):
                self._jobs.remove(job)

    def take(self) -> list[Input]:
        """Waits for inputs, and takes as many as fit into one pass; none once closed. A job that
        has more goes to the end."""
        with self._changed:
            self._pace.pause()
            self._changed.wait_for(lambda: self._jobs or self._closed)
            self._pace.resume()
            taken: list[Input] = []
            while self._jobs and not self._closed:
                job = self._jobs.popleft()
                self._fill(taken, job)
                if job.waiting:
                    self._jobs.append(job)
                    break
            self._pace.end(len(taken))
            return taken

    def close(self, reason: BackendUnavailable) -> None:
        """From now on nothing is taken, for the first reason given; what waits has failed."""
        with self._changed:
            self._closed = self._closed or reason
            for job in self._jobs:
                job.fail(self._closed)
            self._jobs.clear()
            self._changed.notify_all()

    def _fill(self, taken: list[Input], job: Job) -> None:
        longest = max((len(one.ids) for one in taken), default=0)
        while job.waiting:
            following = Input(job, job.waiting[0])
            longest = max(longest, len(following.ids))
            if taken and (len(taken) + 1) * longest > self.max_batch_tokens:
                return
            taken.append(following)
            job.waiting.popleft()
