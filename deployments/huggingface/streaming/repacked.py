"""Layers written anew into the offload folder, once, as they will be read: cast, or quantised.

A file for each layer, and a manifest with their checksums that is written last: without it, or with
another checksum, the layers are written again. What a killed process left is removed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from deployments.errors import StartError
from deployments.placement.header import StoredTensor, read_header
from deployments.progress import Progress, Report, Shard

FOLDER = "roundhouse-weights"  # of `memory.disk`: all that is written there
VERSION = 2
ALIGNMENT = (
    64  # of a resident tensor: sums in float32 may end otherwise where vectors begin otherwise
)
MANIFEST = "manifest.json"
LOCK = "lock"
BLOCK_BYTES = 2**22
WRITING, CHECKING = "repacking weights", "checking repacked weights"

Tensors = Mapping[str, Tensor]


def key(files: list[Path], *what: str) -> str:
    """A name for what is made of these files in this way; another if they change."""
    found = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(files)]
    return hashlib.sha256(json.dumps([VERSION, found, what]).encode()).hexdigest()[:24]


def repack(
    folder: Path, num_layers: int, layer: Callable[[int], Tensors], report: Report
) -> list[dict[str, StoredTensor]]:
    """The layers' tensors in `folder`, which is filled by calling `layer`, unless it has them.

    Raises: StartError.
    """
    _clean(folder.parent)
    if not _is_whole(folder, num_layers, report):
        try:
            _write(folder, num_layers, layer, report)
        except (OSError, SafetensorError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc).rstrip(".") or type(exc).__name__
            raise StartError(
                f"The weights could not be repacked into {folder.parent}: {reason}. "
                "Set `memory.disk` to a folder with room."
            ) from exc
    return [{t.name: t for t in read_header(_file(folder, n))} for n in range(num_layers)]


def _write(folder: Path, num_layers: int, layer: Callable[[int], Tensors], report: Report) -> None:
    with _part(folder) as part:
        checksums, pad = [], ""
        for number in range(num_layers):
            report(Progress(WRITING, (Shard("layers", number, num_layers),)))
            pad = _save(layer(number), _file(part, number), pad)
            checksums.append(_checksum(_file(part, number)))
        (part / MANIFEST).write_text(json.dumps(checksums))
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    report(Progress(WRITING, (Shard("layers", num_layers, num_layers),)))


def _save(tensors: Tensors, file: Path, pad: str) -> str:
    """Writes a layer with what its header is to be padded with; returns what it is for all layers
    that have the same names."""
    save_file(dict(tensors), file, {"pad": pad})
    missing = -min(tensor.start for tensor in read_header(file)) % ALIGNMENT
    if missing:
        pad += missing * " "
        save_file(dict(tensors), file, {"pad": pad})
    return pad


def _is_whole(folder: Path, num_layers: int, report: Report) -> bool:
    try:
        checksums = json.loads((folder / MANIFEST).read_text())
        if len(checksums) != num_layers:
            return False
        for number, expected in enumerate(checksums):
            report(Progress(CHECKING, (Shard("layers", number, num_layers),)))
            if _checksum(_file(folder, number)) != expected:
                return False
    except (OSError, ValueError, TypeError):
        return False
    return True


@contextlib.contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """A folder that is locked while it is filled, and gone if that fails."""
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    part.mkdir(parents=True)
    try:
        with (part / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _clean(parent: Path) -> None:
    """Removes what processes that are gone have begun: nobody holds its lock."""
    for part in parent.glob("*.part-*"):
        with contextlib.suppress(OSError), (part / LOCK).open("a") as lock:
            if _is_free(lock):
                shutil.rmtree(part, ignore_errors=True)


def _is_free(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _file(folder: Path, number: int) -> Path:
    return folder / f"layer-{number:05}.safetensors"


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            checksum = zlib.crc32(block, checksum)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return checksum
