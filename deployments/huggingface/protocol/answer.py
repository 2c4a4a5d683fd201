"""Where the engine's thread hands an answer over to the event loop that sends it."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from deployments.errors import BackendTimeout, RoundhouseError
from deployments.huggingface.engine.generation import Delta
from deployments.huggingface.protocol.response import Response
from deployments.pipe import Pipe

TIMED_OUT = "The model did not finish its answer in time."


class Answer:
    """The sink of all choices of one request. `fail` and `add` are for the engine's thread.

    At `expires_at`, in the loop's time, the answer ends with BackendTimeout; None for never.
    """

    def __init__(self, response: Response, num_choices: int, expires_at: float | None) -> None:
        self.pipe = Pipe()
        self._response = response
        self._num_open = num_choices
        self._loop = asyncio.get_running_loop()
        self._expiry: asyncio.TimerHandle | None = None
        if expires_at is not None:
            error = BackendTimeout(TIMED_OUT)
            self._expiry = self._loop.call_at(expires_at, self.pipe.end, error)

    def add(self, delta: Delta) -> None:
        """Takes a piece of a choice."""
        self._post(self._write, delta)

    def fail(self, error: RoundhouseError) -> None:
        """Takes the error that ended a choice: it ends the answer."""
        self._post(self.pipe.end, error)

    def close(self) -> None:
        """Ends the answer: nothing more is wanted."""
        self.pipe.end()
        if self._expiry is not None:
            self._expiry.cancel()

    def _write(self, delta: Delta) -> None:
        try:
            self._add(delta)
        except Exception as exc:  # noqa: BLE001 - the loop would log it and let the client wait
            self.pipe.end(exc)

    def _add(self, delta: Delta) -> None:
        self.pipe.write(self._response.add(delta))
        if delta.finish_reason:
            self._num_open -= 1
            if not self._num_open:
                self.pipe.write(self._response.end())
                self.pipe.end()

    def _post(self, callback: Callable[..., None], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to read
            self._loop.call_soon_threadsafe(callback, argument)
