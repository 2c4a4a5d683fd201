"""How fast a disk is, past the page cache: what no step that reads weights can exceed."""

import mmap
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

BLOCK_BYTES = 4 * 2**20
# Disks of virtual machines are faster for their first gigabyte after a rest: a step reads several.
MEASURED_BYTES = 3 * 2**30
THREADS = (1, 4)  # one queue entry at a time, and as many as the streamer has


def forget(folder: Path) -> None:
    """Writes out what lies in the page cache of these files, and drops it there."""
    os.sync()
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bandwidth(folder: Path) -> float:
    """Bytes per second of direct reads, the best of few and of many at a time."""
    return max(_bandwidth(folder, num_threads) for num_threads in THREADS)


def _bandwidth(folder: Path, num_threads: int) -> float:
    with ExitStack() as open_files:
        blocks = []
        for file in folder.glob("*.safetensors"):
            descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
            open_files.callback(os.close, descriptor)
            size = file.stat().st_size // BLOCK_BYTES * BLOCK_BYTES
            blocks += [(descriptor, at) for at in range(0, size, BLOCK_BYTES)]
        chosen = random.sample(blocks, min(len(blocks), MEASURED_BYTES // BLOCK_BYTES))
        chosen.sort()
        with ThreadPoolExecutor(num_threads) as threads:
            began = time.perf_counter()
            parts = [chosen[thread::num_threads] for thread in range(num_threads)]
            num_bytes = sum(threads.map(_read, parts))
            return num_bytes / (time.perf_counter() - began)


def _read(blocks: list[tuple[int, int]]) -> int:
    # Aligned as direct reads must be, and in huge pages, into which they are fastest.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, BLOCK_BYTES, flags=flags) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        return sum(os.preadv(descriptor, [memory], at) for descriptor, at in blocks)
