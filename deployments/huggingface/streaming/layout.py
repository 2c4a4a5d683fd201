"""Where a layer's tensors lie in files, and where they will lie in a slot.

A slot gets whole pages of the files, as direct reads need them, so a tensor stands in its slot as
far from a page's beginning as in its file.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from deployments.placement.header import StoredTensor

PAGE_BYTES = 4096
DEVICE_ALIGNMENT_BYTES = 256  # of what torch allocates on a GPU
MAX_GAP_BYTES = 16 * PAGE_BYTES  # what lies between two tensors is read too, if it is no more
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "I32": torch.int32,
}


@dataclass(frozen=True, slots=True)
class Range:
    """`num_bytes` of a file from `start` on, both whole pages but at the file's end, for `offset`
    in the slot."""

    file: Path
    start: int
    num_bytes: int
    offset: int


@dataclass(frozen=True, slots=True)
class View:
    """A tensor in a slot."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    num_bytes: int

    def of(self, slot: Tensor) -> Tensor:
        """The tensor in a slot of bytes `(slot_bytes,)`, without copying."""
        data = slot[self.offset : self.offset + self.num_bytes]
        return data.view(self.dtype).view(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a layer is read. `num_bytes` is the slot that it needs."""

    ranges: tuple[Range, ...]
    views: tuple[View, ...]
    num_bytes: int

    @property
    def read_bytes(self) -> int:
        """What is read each time."""
        return sum(part.num_bytes for part in self.ranges)


@dataclass(frozen=True, slots=True)
class Piece:
    """`num_bytes` of a slot in RAM from `source` on, for `target` in a slot of the device."""

    source: int
    target: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class DeviceLayout:
    """How a layer that has been read lies in a slot of the device, which is no larger."""

    pieces: tuple[Piece, ...]
    views: tuple[View, ...]


def can_be_viewed(tensor: StoredTensor) -> bool:
    """Whether a tensor can be used where it lies, without being copied."""
    dtype = DTYPES.get(tensor.dtype)
    return dtype is not None and tensor.start % dtype.itemsize == 0


def lay_out(tensors: Iterable[StoredTensor]) -> Layout:
    """The layout of tensors that can be viewed, of one file or of several."""
    ranges: list[Range] = []
    views = []
    runs = _runs(sorted(tensors, key=lambda tensor: (str(tensor.file), tensor.start)))
    offset = 0
    for run in runs:
        first, end = run[0], max(tensor.start + tensor.num_bytes for tensor in run)
        start = first.start // PAGE_BYTES * PAGE_BYTES
        num_bytes = -(-(end - start) // PAGE_BYTES) * PAGE_BYTES
        size = first.file.stat().st_size
        ranges.append(Range(first.file, start, min(num_bytes, size - start), offset))
        views += [_view(tensor, offset + tensor.start - start) for tensor in run]
        offset += num_bytes
    return Layout(tuple(ranges), tuple(views), offset)


def on_device(layout: Layout) -> DeviceLayout:
    """What is read in one piece is moved to begin as torch's own tensors do. A file's header has
    any length, and off their alignment a GPU multiplies by slower kernels, which round otherwise.
    """
    pieces, views = list[Piece](), list[View]()
    starts = [*(part.offset for part in layout.ranges), layout.num_bytes + 1]
    for start, end in pairwise(starts):
        inside = [view for view in layout.views if start <= view.offset < end]
        first = min((view.offset for view in inside), default=start)
        last = max((view.offset + view.num_bytes for view in inside), default=start)
        shift = first % DEVICE_ALIGNMENT_BYTES
        pieces.append(Piece(first, first - shift, last - first))
        views += [replace(view, offset=view.offset - shift) for view in inside]
    return DeviceLayout(tuple(pieces), tuple(views))


def _runs(tensors: list[StoredTensor]) -> list[list[StoredTensor]]:
    """Neighbours in a file together: what is read in one piece."""
    runs: list[list[StoredTensor]] = []
    for tensor in tensors:
        before = runs[-1][-1] if runs else None
        if before is None or before.file != tensor.file or _gap(before, tensor) > MAX_GAP_BYTES:
            runs.append([])
        runs[-1].append(tensor)
    return runs


def _gap(before: StoredTensor, after: StoredTensor) -> int:
    return after.start - before.start - before.num_bytes


def _view(tensor: StoredTensor, offset: int) -> View:
    return View(tensor.name, DTYPES[tensor.dtype], tensor.shape, offset, tensor.num_bytes)
