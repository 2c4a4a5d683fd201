"""How fast weights can move, and what bound on decoding follows.

A step reads every weight once and serves the whole batch, so the slowest road that weights must
travel in each step bounds it. Compute is not in the bound: decoding waits for memory.
"""

import mmap
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from deployments.placement.arrangement import Arrangement

MEASURED_BYTES = 256 * 2**20
BLOCK_BYTES = 8 * 2**20
MAX_MEASURE_S = 1.0


@dataclass(frozen=True, slots=True)
class Bandwidths:
    """Bytes per second: of the memory in which the model runs, of the link from RAM to the GPU, of
    the disk. The defaults are those of a small GPU, of PCIe 4.0 x16 and of an NVMe disk."""

    memory: float = 300e9
    link: float = 25e9
    disk: float = 3e9
    source: str = "assumed"


CPU_BANDWIDTHS = Bandwidths(memory=20e9)


@dataclass(frozen=True, slots=True)
class Bound:
    """What decoding cannot exceed."""

    step_s: float
    tokens_per_s: float
    limited_by: str

    @property
    def tokens_per_s_per_sequence(self) -> float:
        """A sequence gets a token each step."""
        return 1 / self.step_s


def bound(arrangement: Arrangement, read_bytes: int, batch: int, speeds: Bandwidths) -> Bound:
    """`read_bytes` are the weights and the keys and values that a step reads in memory."""
    roads = {
        "memory": read_bytes / speeds.memory,
        "link": arrangement.link_bytes / speeds.link,
        "disk": arrangement.read_bytes / speeds.disk,
    }
    slowest = max(roads, key=lambda road: roads[road])
    return Bound(roads[slowest], batch / roads[slowest], slowest)


def measured(speeds: Bandwidths, file: Path | None, on_cpu: bool) -> Bandwidths:
    """`speeds` with what can be measured here in about a second: RAM, if the model runs in it, and
    the disk that `file` is on, by direct reads."""
    disk = _disk_bandwidth(file) if file else None
    memory = _ram_bandwidth() if on_cpu else speeds.memory
    return replace(speeds, memory=memory, disk=disk or speeds.disk, source="measured")


def _ram_bandwidth() -> float:
    """Of copying with one thread: read and written bytes both count."""
    source, target = bytearray(MEASURED_BYTES // 4), bytearray(MEASURED_BYTES // 4)
    target[:] = source  # touches every page
    best = min(_timed(lambda: target.__setitem__(slice(None), source)) for _ in range(3))
    return 2 * len(source) / best


def _disk_bandwidth(file: Path) -> float | None:
    """None where the filesystem has no direct reads: the page cache would be measured."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return None
    try:
        return _read_all(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _read_all(descriptor: int) -> float | None:
    num_read, began = 0, time.perf_counter()
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, BLOCK_BYTES, flags=flags) as block:  # aligned as direct reads must be
        with suppress(AttributeError, OSError):  # a kernel, or a system, without them
            block.madvise(mmap.MADV_HUGEPAGE)  # as slots are: into others a third as fast
        while num_read < MEASURED_BYTES and time.perf_counter() - began < MAX_MEASURE_S:
            part = os.preadv(descriptor, [block], num_read)
            num_read += part
            if part < BLOCK_BYTES:
                break
    return num_read / (time.perf_counter() - began) if num_read >= BLOCK_BYTES else None


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
