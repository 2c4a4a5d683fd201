"""Which operations torch really runs while something runs, and on what."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Notes the name of each operation, and the addresses of the tensors it is given first."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self._first: list[int] = []

    def on(self, name: str) -> list[int]:
        """The addresses of what each operation of this name is given."""
        pairs = zip(self.names, self._first, strict=True)
        return [address for found, address in pairs if found == name]

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.append(function.__name__.split(".")[0])
        is_tensor = args and isinstance(args[0], torch.Tensor)
        self._first.append(args[0].data_ptr() if is_tensor else 0)
        return function(*args, **(kwargs or {}))
