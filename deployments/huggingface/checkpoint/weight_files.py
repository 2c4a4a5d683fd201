"""The two kinds of files that weights come in, and whether one of them is whole.

Looks at sizes, headers and the ends of files; reads no weights and no pickles.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployments.placement.header import check_pointer, damaged, read_header

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
    read_header(path)


def check_pickle(path: Path) -> None:
    """Raises: StartError for a file that is none of torch.save's, or a zip without its end."""
    with path.open("rb") as file:
        start = file.read(8)
    check_pointer(path, start)
    if start.startswith(LEGACY_PICKLE_START):
        return  # it has neither a length nor an end to look for: torch will see
    if not start.startswith(ZIP_START):
        raise damaged(path, "is not a file that torch.save wrote")
    if not zipfile.is_zipfile(path):
        raise damaged(path, "has no end, so a part of it is missing")


SAFETENSORS = Layout("model.safetensors", "model.safetensors.index.json", check_safetensors)
PICKLES = Layout("pytorch_model.bin", "pytorch_model.bin.index.json", check_pickle)
