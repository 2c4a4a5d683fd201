"""Memory that matrices are unpacked in, kept from one to the next.

The system clears the pages that it gives: for memory taken anew each time that took longer than
unpacking into it (benchmarks/RESULTS.md).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

from deployments.huggingface.streaming.ring import allocate


class Scratch:
    """As large as the most that was asked for. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._memory: Tensor | None = None

    @contextmanager
    def held(self, num_bytes: int) -> Iterator[Tensor]:
        """Memory `(num_bytes,)` on a CPU, with anything in it, that nobody else has meanwhile."""
        with self._lock:
            if self._memory is None or self._memory.numel() < num_bytes:
                self._memory = None  # first, so that both are never there
                with torch.inference_mode(False):  # else it could not be written to outside of it
                    self._memory = allocate(num_bytes)
            yield self._memory[:num_bytes]
