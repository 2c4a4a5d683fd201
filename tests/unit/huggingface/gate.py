"""A gate before a model's forwards: it holds the engine's thread while a test looks or asks."""

import asyncio
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

WAIT_S = 120


class Gate:
    """Open, until it is told to hold. Forwards are counted by the embedding that each begins with.

    A test that forgets to open it fails what the engine is at, after WAIT_S.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._num_allowed = math.inf
        self._holds_one = False

    def hold(self, after: int = 0) -> None:
        """Lets so many more forwards begin, and holds the next."""
        self._allow(after)

    def open(self) -> None:
        """Lets all begin."""
        self._allow(math.inf)

    async def reached(self) -> None:
        """Returns when a forward is held."""
        assert await asyncio.to_thread(self._wait)

    def __call__(self, module: nn.Module, _: Any) -> None:
        if not isinstance(module, nn.Embedding):
            return
        with self._turn:
            if not self._num_allowed:
                self._holds_one = True
                self._turn.notify_all()
            assert self._turn.wait_for(lambda: self._num_allowed > 0, WAIT_S)
            self._num_allowed -= 1

    def _allow(self, number: float) -> None:
        with self._turn:
            self._num_allowed = number
            self._holds_one = self._holds_one and not number
            self._turn.notify_all()

    def _wait(self) -> bool:
        with self._turn:
            return self._turn.wait_for(lambda: self._holds_one, WAIT_S)


@contextmanager
def gated() -> Iterator[Gate]:
    """A gate before every model of this process."""
    gate = Gate()
    hook = register_module_forward_pre_hook(gate)
    try:
        yield gate
    finally:
        hook.remove()
        gate.open()
