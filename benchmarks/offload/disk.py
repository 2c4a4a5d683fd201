"""How fast a disk is, past the page cache: what no step that reads weights can exceed.

Two figures. Into a block of memory that is read into again and again, and so stays in the
processor's cache: the most that the disk gives. And into as much memory as slots take, where any
reader must put weights: on a machine whose disk is copied by a processor, as a virtual one's may
be, that is less.
"""

import mmap
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from statistics import median

BLOCK_BYTES = 4 * 2**20
# Disks of virtual machines are faster for their first gigabyte after a rest: a step reads several.
MEASURED_BYTES = 2 * 2**30
THREADS = (1, 4)  # one queue entry at a time, and as many as the streamer has

Buffer = mmap.mmap | memoryview


def forget(folder: Path) -> None:
    """Writes out what lies in the page cache of these files, and drops it there."""
    os.sync()
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Probe:
    """Direct reads of a folder's weights, taken several times: medians, by the better number of
    threads."""

    def __init__(self, folder: Path, slots: Sequence[memoryview] = ()) -> None:
        """`slots` are memory that begins with pages, and is overwritten each time."""
        self._folder = folder
        self._parts = [
            slot[at : at + BLOCK_BYTES]
            for slot in slots
            for at in range(0, len(slot) - BLOCK_BYTES + 1, BLOCK_BYTES)
        ]
        self._found: dict[tuple[str, int], list[float]] = {}

    def take(self) -> None:
        """Measures once more."""
        for num_threads in THREADS:
            self._take("disk_bandwidth", _blocks(num_threads))
            if len(self._parts) >= num_threads:
                targets = [self._parts[thread::num_threads] for thread in range(num_threads)]
                self._take("memory_bandwidth", targets)

    def bandwidths(self) -> dict[str, float | None]:
        """Bytes per second, into a block and into the slots; None if there are none."""
        best: dict[str, float | None] = {"disk_bandwidth": None, "memory_bandwidth": None}
        for (name, _), found in self._found.items():
            best[name] = max(best[name] or 0.0, median(found))
        return best

    def _take(self, name: str, targets: Sequence[Sequence[Buffer]]) -> None:
        found = self._found.setdefault((name, len(targets)), [])
        found.append(_bandwidth(self._folder, targets))


def _blocks(num_threads: int) -> list[list[Buffer]]:
    """A block for each thread. Aligned as direct reads must be, and in huge pages, into which they
    are fastest."""
    blocks: list[list[Buffer]] = []
    for _ in range(num_threads):
        memory = mmap.mmap(-1, BLOCK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        blocks.append([memory])
    return blocks


def _bandwidth(folder: Path, targets: Sequence[Sequence[Buffer]]) -> float:
    """Of as many threads as there are `targets`, each reading into its own in turn."""
    with ExitStack() as open_files:
        blocks = []
        for file in folder.glob("*.safetensors"):
            descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
            open_files.callback(os.close, descriptor)
            size = file.stat().st_size // BLOCK_BYTES * BLOCK_BYTES
            blocks += [(descriptor, at) for at in range(0, size, BLOCK_BYTES)]
        chosen = random.sample(blocks, min(len(blocks), MEASURED_BYTES // BLOCK_BYTES))
        chosen.sort()
        num_threads = len(targets)
        with ThreadPoolExecutor(num_threads) as threads:
            began = time.perf_counter()
            parts = [chosen[thread::num_threads] for thread in range(num_threads)]
            num_bytes = sum(threads.map(_read, parts, targets))
            return num_bytes / (time.perf_counter() - began)


def _read(blocks: list[tuple[int, int]], targets: Sequence[Buffer]) -> int:
    into = cycle(targets)
    return sum(os.preadv(descriptor, [next(into)], at) for descriptor, at in blocks)
