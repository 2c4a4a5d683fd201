"""What torch really allocates while something runs on a CPU, and how much of it lives at a time."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Counts the storages that are made inside, and when they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = 0
        self.num_bytes = 0  # of all together
        self._living: dict[int, int] = {}
        self._living_bytes = 0

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage.nbytes() and storage._cdata not in self._living:
            self._living[storage._cdata] = storage.nbytes()
            self._living_bytes += storage.nbytes()
            self.num_bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self._living_bytes)
            weakref.finalize(storage, self._gone, storage._cdata)

    def _gone(self, key: int) -> None:
        self._living_bytes -= self._living.pop(key, 0)
