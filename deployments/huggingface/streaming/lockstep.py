"""Two passes that go through the layers side by side, so that each layer's weights come once.

They take turns, layer by layer: the one waits while the other computes. Each has a thread only
because a model's `forward` cannot be left in its middle otherwise.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from threading import Semaphore, get_ident

import torch

Action = Callable[[], None]


class Lockstep:
    """Of the caller's pass and of a second one, in a thread of `executor`; used once."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._turns = Semaphore(0), Semaphore(0)
        self._is_running = [True, True]
        self._first_thread = get_ident()

    def run(self, first: Action, second: Action) -> None:
        """Both, to their ends; one that fails does not end the other. Raises: what they raise."""
        inference = torch.is_inference_mode_enabled()  # each thread has its own mode

        def run_second() -> None:
            self._turns[1].acquire()
            try:
                with torch.inference_mode(inference):
                    second()
            finally:
                self._leave(1)

        ended = self._executor.submit(run_second)
        try:
            first()
        finally:
            self._leave(0)
            failure = ended.exception()
        if failure is not None:
            raise failure

    @property
    def is_last(self) -> bool:
        """Whether the other pass has been at the layer that this one is at, or has ended."""
        me = self._me()
        return me == 1 or not self._is_running[1]

    def hand_over(self) -> None:
        """Lets the other pass take its turn, and waits for the next of this one."""
        me = self._me()
        if self._is_running[1 - me]:
            self._turns[1 - me].release()
            self._turns[me].acquire()

    def _me(self) -> int:
        return 0 if get_ident() == self._first_thread else 1

    def _leave(self, me: int) -> None:
        self._is_running[me] = False
        self._turns[1 - me].release()
