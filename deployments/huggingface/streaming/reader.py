"""Reads ranges of files into memory with several threads, and leaves no trace in the page cache.

Reads are direct (O_DIRECT) where the filesystem allows it. Elsewhere what was read is dropped from
the cache again: a scan that is larger than RAM only evicts what others need.
"""

import contextlib
import errno
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from deployments.errors import WeightsLost
from deployments.huggingface.streaming.layout import PAGE_BYTES, Range

NUM_THREADS = 4
BLOCK_BYTES = 32 * 2**20  # large: beside a busy processor the disk has work while threads wake up


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file as it was when it was opened."""

    descriptor: int
    is_direct: bool
    identity: tuple[int, int]


class Reader:
    """Owns threads and open files. All methods may be called from any thread."""

    def __init__(self, files: Iterable[Path], num_threads: int = NUM_THREADS) -> None:
        """Opens the files. Raises: OSError."""
        self.num_read_bytes = 0
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="weights-reader")
        self._files: dict[Path, OpenFile] = {}
        try:
            for path in files:
                self._files[path] = _opened(path)
        except OSError:
            self.close()
            raise

    @property
    def is_direct(self) -> bool:
        """Whether all reads pass by the page cache."""
        return all(file.is_direct for file in self._files.values())

    def read(self, ranges: Sequence[Range], slot: memoryview) -> list[Future[None]]:
        """Begins to fill a slot, whose memory begins with a page. A future raises: WeightsLost."""
        blocks = [
            (part, at, min(BLOCK_BYTES, part.num_bytes - at))
            for part in ranges
            for at in range(0, part.num_bytes, BLOCK_BYTES)
        ]
        return [self._threads.submit(self._fill, *block, slot) for block in blocks]

    def close(self) -> None:
        """Ends the threads, after the blocks that they are at, and closes the files."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for file in self._files.values():
            os.close(file.descriptor)
        self._files = {}

    def _fill(self, part: Range, at: int, num_bytes: int, slot: memoryview) -> None:
        file = self._files[part.file]
        start, offset = part.start + at, part.offset + at
        try:
            if _identity(file.descriptor) != file.identity:
                raise WeightsLost(_LOST.format(part.file.name, "has been changed"))
            _read(file, start, slot[offset : offset + _padded(num_bytes)], num_bytes)
        except OSError as exc:
            reason = f"cannot be read any more ({exc.strerror or type(exc).__name__})"
            raise WeightsLost(_LOST.format(part.file.name, reason)) from exc
        with self._lock:
            self.num_read_bytes += num_bytes


_LOST = "The model's weights are lost: {} {}. The replica will be replaced."


def _opened(path: Path) -> OpenFile:
    try:
        descriptor, is_direct = os.open(path, os.O_RDONLY | os.O_DIRECT), True
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        descriptor, is_direct = os.open(path, os.O_RDONLY), False  # tmpfs and some network disks
    return OpenFile(descriptor, is_direct, _identity(descriptor))


def _identity(descriptor: int) -> tuple[int, int]:
    """What changes when a file is written to, or cut. Another file of its name is none of ours."""
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // PAGE_BYTES) * PAGE_BYTES


def _read(file: OpenFile, start: int, target: memoryview, num_bytes: int) -> None:
    """Raises: OSError, also where the file ends too soon."""
    done = 0
    while done < num_bytes:
        part = os.preadv(file.descriptor, [target[done:]], start + done)
        if part <= 0 or (part % PAGE_BYTES and done + part < num_bytes):
            raise OSError(errno.EIO, "it ends too soon")
        done += part
    if not file.is_direct:
        with contextlib.suppress(OSError):
            os.posix_fadvise(file.descriptor, start, num_bytes, os.POSIX_FADV_DONTNEED)
