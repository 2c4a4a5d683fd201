"""The two kinds of files that weights come in, and whether one of them is whole.

Looks at sizes, headers and the ends of files; reads no weights and no pickles.
"""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.errors import StartError

MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
LFS_POINTER = b"version https://git-lfs"
ZIP_START = b"PK\x03\x04"
LEGACY_PICKLE_START = b"\x80\x02"  # torch.save before 1.6


@dataclass(frozen=True, slots=True)
class Layout:
    """How weights lie in a folder: in one file, or in those that the index lists."""

    whole: str
    index: str
    check: Callable[[Path], None]


def check_safetensors(path: Path) -> None:
    """Raises: StartError for a file that is shorter or longer than its own header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        _check_pointer(path, start)
        num_header_bytes = int.from_bytes(start, "little")
        if len(start) < 8 or num_header_bytes > min(MAX_HEADER_BYTES, size - 8):
            raise damaged(path, f"has {size} bytes, fewer than its header needs")
        num_data_bytes = _num_data_bytes(path, file.read(num_header_bytes))
    expected = 8 + num_header_bytes + num_data_bytes
    if size != expected:
        raise damaged(path, f"has {size} bytes where its header says {expected}")


def check_pickle(path: Path) -> None:
    """Raises: StartError for a file that is none of torch.save's, or a zip without its end."""
    with path.open("rb") as file:
        start = file.read(8)
    _check_pointer(path, start)
    if start.startswith(LEGACY_PICKLE_START):
        return  # it has neither a length nor an end to look for: torch will see
    if not start.startswith(ZIP_START):
        raise damaged(path, "is not a file that torch.save wrote")
    if not zipfile.is_zipfile(path):
        raise damaged(path, "has no end, so a part of it is missing")


def damaged(path: Path, what: str) -> StartError:
    """The refusal of a file that was not downloaded whole."""
    return StartError(f"{path} is truncated or damaged: it {what}. Download it again.")


def _check_pointer(path: Path, start: bytes) -> None:
    if LFS_POINTER.startswith(start) and start:
        raise StartError(
            f"{path} is a Git LFS pointer, not the weights. Run `git lfs pull` in its folder."
        )


def _num_data_bytes(path: Path, header: bytes) -> int:
    try:
        tensors: dict[str, Any] = json.loads(header)
        tensors.pop("__metadata__", None)
        return max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError):
        raise damaged(path, "has an unreadable header") from None


SAFETENSORS = Layout("model.safetensors", "model.safetensors.index.json", check_safetensors)
PICKLES = Layout("pytorch_model.bin", "pytorch_model.bin.index.json", check_pickle)
