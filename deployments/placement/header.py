"""What a safetensors file says of its tensors: names, types, shapes, and where their bytes are.

Reads headers only, never the tensors. https://huggingface.co/docs/safetensors/index#format
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.errors import StartError

MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file: its bytes are `[start, start + num_bytes)`. `dtype` is safetensors'."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    num_bytes: int

    @property
    def num_elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def read_header(path: Path) -> list[StoredTensor]:
    """The tensors of a file, as it lists them.

    Raises: StartError for a file that is shorter or longer than its own header says.
    """
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        start = file.read(8)
        check_pointer(path, start)
        num_header_bytes = int.from_bytes(start, "little")
        if len(start) < 8 or num_header_bytes > min(MAX_HEADER_BYTES, size - 8):
            raise damaged(path, f"has {size} bytes, fewer than its header needs")
        tensors = _tensors(path, _read(file, num_header_bytes), 8 + num_header_bytes)
    end = max((t.start + t.num_bytes for t in tensors), default=8 + num_header_bytes)
    if size != end:
        raise damaged(path, f"has {size} bytes where its header says {end}")
    return tensors


def check_pointer(path: Path, start: bytes) -> None:
    """Raises: StartError for a file that begins as Git LFS's stand-ins for large files do."""
    if LFS_POINTER.startswith(start) and start:
        raise StartError(
            f"{path} is a Git LFS pointer, not the weights. Run `git lfs pull` in its folder."
        )


def damaged(path: Path, what: str) -> StartError:
    """The refusal of a file that is not what was written."""
    return StartError(f"{path} is truncated or damaged: it {what}. Download it again.")


def _read(file: Any, num_bytes: int) -> bytes:
    parts = []
    while num_bytes and (part := file.read(num_bytes)):
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)


def _tensors(path: Path, header: bytes, data_start: int) -> list[StoredTensor]:
    try:
        entries: dict[str, Any] = json.loads(header)
        entries.pop("__metadata__", None)
        return [_tensor(path, name, entry, data_start) for name, entry in entries.items()]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise damaged(path, "has an unreadable header") from None


def _tensor(path: Path, name: str, entry: dict[str, Any], data_start: int) -> StoredTensor:
    start, end = (int(offset) for offset in entry["data_offsets"])
    if not 0 <= start <= end:
        raise ValueError("offsets out of order")
    shape = tuple(int(size) for size in entry["shape"])
    return StoredTensor(name, str(entry["dtype"]), shape, path, data_start + start, end - start)
