"""Slots in RAM through which layers pass in a circle: filled ahead, by turns, across steps.

Layer k of those that stream always has slot k modulo the number of slots, so that parameters can
point there for good. A slot is filled anew as soon as its layer has been used: for the next layer
that has it, in this step or in the one after.
"""

import mmap
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from deployments.huggingface.streaming.layout import Layout
from deployments.huggingface.streaming.reader import Reader

NO_ROUNDING = "pinned_max_round_threshold_mb"
NO_CACHING = "pinned_max_cached_size_mb"


class Slot:
    """Memory that begins with a page, and the layer that is in it or on its way there."""

    def __init__(self, num_bytes: int, is_pinned: bool) -> None:
        self.layer: int | None = None
        self.filling: list[Future[None]] = []
        self.tensor = allocate(num_bytes, is_pinned)
        self.memory = memoryview(self.tensor.numpy())


class Ring:
    """For one thread, which uses the layers; others fill the slots."""

    def __init__(
        self, layouts: Sequence[Layout], num_slots: int, reader: Reader, is_pinned: bool = False
    ) -> None:
        """Begins to fill the slots."""
        self._layouts = layouts
        self._is_held = False
        self._reader = reader
        num_bytes = max(layout.num_bytes for layout in layouts)
        num_slots = max(1, min(num_slots, len(layouts)))
        self._slots = [Slot(num_bytes, is_pinned) for _ in range(num_slots)]
        for layer in range(num_slots):
            self._fill(layer)

    @property
    def num_slots(self) -> int:
        """How many slots there are."""
        return len(self._slots)

    @property
    def num_bytes(self) -> int:
        """What the slots take."""
        return sum(slot.tensor.numel() for slot in self._slots)

    def views(self, layer: int) -> dict[str, Tensor]:
        """The tensors of a layer, where they will be whenever it is used."""
        slot = self._slots[layer % len(self._slots)]
        return {view.name: view.of(slot.tensor) for view in self._layouts[layer].views}

    def bytes_of(self, layer: int) -> Tensor:
        """The part of its slot that a layer fills."""
        return self._slots[layer % len(self._slots)].tensor[: self._layouts[layer].num_bytes]

    def acquire(self, layer: int) -> None:
        """Returns when a layer is in its slot. Raises: WeightsLost.

        Layers may be asked for in any order; only in turn they have been read ahead.
        """
        if self._is_held:
            return
        slot = self._slots[layer % len(self._slots)]
        if slot.layer != layer:
            self._fill(layer)
        try:
            for block in slot.filling:
                block.result()
        except BaseException:
            slot.layer = None  # what is there is no layer; it is read again if asked for again
            raise
        slot.filling = []

    def release(self, layer: int) -> None:
        """Lets a layer's slot be filled with the next that has it."""
        if self._is_held:
            return
        slot = layer % len(self._slots)
        following = layer + len(self._slots)
        following = following if following < len(self._layouts) else slot
        if following != layer:
            self._fill(following)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, the slots keep the first layers, whichever are asked for. Raises: WeightsLost."""
        for layer in range(len(self._slots)):
            self.acquire(layer)
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False

    def _fill(self, layer: int) -> None:
        slot = self._slots[layer % len(self._slots)]
        wait(slot.filling)  # after an aborted step: nobody else may write there
        slot.layer = layer
        slot.filling = self._reader.read(self._layouts[layer].ranges, slot.memory)


def allocate(num_bytes: int, is_pinned: bool = False) -> Tensor:
    """Memory `(num_bytes,)` that begins with a page.

    In huge pages where the system has them: direct reads into small ones ran at half the disk's
    bandwidth (benchmarks/RESULTS.md).
    """
    if is_pinned:
        pin_exactly()
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, num_bytes, flags=flags)
    with suppress(AttributeError, OSError):  # a kernel, or a system, without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def pin_exactly() -> None:
    """Lets torch pin as many bytes as are asked for, and give them back: it rounds up to a power of
    two, and 70 GB would take 128 GiB; and without rounding alone (`pinned_max_round_threshold_mb`)
    torch 2.13 hands what it has kept to whoever asks for anything up to the next power of two,
    larger or not. What the environment says of its allocator stands.
    https://github.com/pytorch/pytorch/issues/150517"""
    given = os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF") or ""
    if NO_CACHING not in given:
        settings = [*filter(None, [given]), f"{NO_ROUNDING}:1", f"{NO_CACHING}:1"]
        torch._C._accelerator_setAllocatorSettings(",".join(settings))
