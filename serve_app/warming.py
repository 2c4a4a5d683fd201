"""Requests to models that do not run yet: held until they do, or told when to come back.

A cold application is asked to start once, however many requests come for it. What is held is
bounded in time, number and bytes. Who answers in the model's place is for `dispatch` to find; that
a model is starting is never held against it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass

from deployments.errors import BackendError, BackendUnavailable, ModelWarming
from deployments.progress import Progress
from serve_app.config import RouterSettings
from serve_app.directory import Application, Cluster, Directory
from serve_app.starts import Starts

logger = logging.getLogger("roundhouse")

UNKNOWN_RETRY_S = 5.0
FAILED_RETRY_S = 60.0  # it takes an operator to mend it
LOADING_KEPT_S = 1.0

Watch = Callable[[Application], AbstractContextManager[object]]


@dataclass(slots=True)
class Patience:
    """How long one request may wait for models to start, all of them together, and how long for
    its whole answer. `keep_alive` tells a streaming client that it is not forgotten; times are
    those of the running loop."""

    settings: RouterSettings
    body_bytes: int
    keep_alive: Callable[[], Awaitable[None]] | None
    began_at: float
    told_at: float

    @classmethod
    def of(
        cls,
        settings: RouterSettings,
        body_bytes: int,
        keep_alive: Callable[[], Awaitable[None]] | None = None,
    ) -> "Patience":
        """That of a request which has just come."""
        now = asyncio.get_running_loop().time()
        return cls(settings, body_bytes, keep_alive, now, now)

    @property
    def left_s(self) -> float:
        """For models to start."""
        return self.settings.hold_s - self._spent_s

    @property
    def answer_left_s(self) -> float:
        """For the whole answer."""
        return self.settings.request_timeout_s - self._spent_s

    @property
    def _spent_s(self) -> float:
        return asyncio.get_running_loop().time() - self.began_at

    async def tell(self) -> None:
        """A word to the client, if it is time for one."""
        now = asyncio.get_running_loop().time()
        if self.keep_alive is not None and now - self.told_at >= self.settings.keepalive_s:
            self.told_at = now
            await self.keep_alive()


class Warming:
    """Who waits for which application, in this router. `holding` and `waking` watch each request
    that waits, and each start of a cold application, by a block around it."""

    def __init__(self, cluster: Cluster, directory: Directory) -> None:
        self._cluster = cluster
        self._directory = directory
        self._starts = Starts()
        self._wakes: dict[str, asyncio.Task[None]] = {}
        self._held: Counter[str] = Counter()
        self._held_bytes = 0
        self._loading: dict[str, Progress] = {}
        self._loading_read_at: float | None = None
        self._reading = asyncio.Lock()
        self.holding: Watch = nullcontext
        self.waking: Watch = nullcontext
        directory.watchers.append(self._starts.observe)

    def held(self, application: str) -> int:
        """How many requests wait for an application."""
        return self._held[application]

    async def expected_s(self, application: Application) -> float | None:
        """In how many seconds a cold or warming application is thought to run, had it been asked
        to; None for any other, and where nothing is known."""
        if application.state not in {"cold", "warming"}:
            return None
        loading = await self._progress(application) if application.starts else None
        return self._starts.remaining_s(application, loading)

    async def running(
        self, application: Application, model: str, patience: Patience
    ) -> Application:
        """The application once it runs: at once, or when it has been started.

        Raises: ModelWarming, with the time to come back, if the request cannot be held for so
        long, or no more can; BackendUnavailable if the application has failed.
        """
        if application.state == "running":
            return application
        _check_failed(application, model)
        self._wake(application)
        expected_s = await self.expected_s(application)
        if patience.left_s <= 0 or (expected_s or 0) > patience.left_s:
            raise _warming(f"The model '{model}' is starting.", expected_s)
        with self._place(application, model, patience, expected_s), self.holding(application):
            return await self._until_running(application, model, patience)

    async def _until_running(
        self, application: Application, model: str, patience: Patience
    ) -> Application:
        while application.state != "running":
            if patience.left_s <= 0:
                expected_s = await self.expected_s(application)
                raise _warming(f"The model '{model}' is still starting.", expected_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(patience.settings.keepalive_s, patience.left_s)):
                    await self._directory.next_look()
            found = self._directory.application(application.name)
            if found is None:
                raise BackendUnavailable(f"The model '{model}' was removed while it was starting.")
            application = found
            _check_failed(application, model)
            self._wake(application)
            await patience.tell()
        return application

    @contextmanager
    def _place(
        self,
        application: Application,
        model: str,
        patience: Patience,
        expected_s: float | None,
    ) -> Iterator[None]:
        """Holds one request, if there is room. Raises: ModelWarming."""
        name, num_bytes, settings = application.name, patience.body_bytes, patience.settings
        if (
            self._held[name] >= settings.max_held_requests
            or self._held_bytes + num_bytes > settings.max_held_bytes
        ):
            message = f"The model '{model}' is starting, and no more requests can wait for it."
            raise _warming(message, expected_s)
        self._held[name] += 1
        self._held_bytes += num_bytes
        try:
            yield
        finally:
            self._held[name] -= 1
            self._held_bytes -= num_bytes

    def _wake(self, application: Application) -> None:
        """Has a cold application started, once: whoever comes while it is being woken joins."""
        name = application.name
        if application.state == "cold" and name not in self._wakes:
            self._wakes[name] = asyncio.create_task(self._woken(application))

    async def _woken(self, application: Application) -> None:
        try:
            with self.waking(application):
                await self._cluster.wake(application)
            self._directory.hurry()
        except BackendError as exc:
            logger.warning("application %s was not woken: %s", application.name, exc.message)
        finally:
            del self._wakes[application.name]

    async def _progress(self, application: Application) -> Progress | None:
        """How far its replica is; of several the one that is furthest. Asked once for all."""
        async with self._reading:
            now = asyncio.get_running_loop().time()
            if self._loading_read_at is None or now - self._loading_read_at >= LOADING_KEPT_S:
                told = await self._directory.loading()
                self._loading = {
                    name: max(found, key=lambda p: p.percent or 0.0)
                    for name, found in told.items()
                    if found
                }
                self._loading_read_at = now
        return self._loading.get(application.name)


def _check_failed(application: Application, model: str) -> None:
    if application.state == "failed":
        raise BackendUnavailable(
            f"The model '{model}' failed to start.", retry_after_s=FAILED_RETRY_S
        )


def _warming(message: str, expected_s: float | None) -> ModelWarming:
    return ModelWarming(message, retry_after_s=expected_s or UNKNOWN_RETRY_S)
