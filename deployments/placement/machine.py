"""What this machine has left for a model: the one place that asks it.

RAM is bounded by the control group of the process as well as by what is free; a container's limit
is invisible to everything else that tells sizes of memory.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")
USAGE_FILES = ("memory.current", "memory.usage_in_bytes")
NO_LIMIT = 2**60  # version 1 writes a number near 2**63 where there is none
NVIDIA_SMI = (
    "nvidia-smi",
    "--query-gpu=memory.free,memory.total",
    "--format=csv,noheader,nounits",
)
TIMEOUT_S = 5


def available_ram_bytes() -> int:
    """What this process can still take: the least of free RAM and of what any control group above
    it has left. File pages that a group can drop count as free."""
    return min([psutil.virtual_memory().available, *_left_in_groups()])


def own_ram_bytes() -> int:
    """What this process has taken already."""
    return int(psutil.Process().memory_info().rss)


def free_gpu_bytes() -> int:
    """Free memory of the GPU that this process would use; 0 without one. Asks torch only where it
    is loaded: importing it takes seconds."""
    return _gpu_bytes(0)


def total_gpu_bytes() -> int:
    """All memory of the GPU that this process would use; 0 without one."""
    return _gpu_bytes(1)


def _gpu_bytes(of_free_and_total: int) -> int:
    if (torch := sys.modules.get("torch")) is not None:
        if not torch.cuda.is_available():
            return 0
        return int(torch.cuda.mem_get_info()[of_free_and_total])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not visible.strip():
        return 0
    command = [*NVIDIA_SMI, f"--id={visible.split(',')[0]}"] if visible else list(NVIDIA_SMI)
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        sizes = done.stdout.splitlines()[0].split(",")
        return int(sizes[of_free_and_total]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0


def free_disk_bytes(folder: Path) -> int:
    """Free space where `folder` is, or would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _left_in_groups() -> Iterator[int]:
    for folder in own_groups():
        limit, usage = _number(folder, LIMIT_FILES), _number(folder, USAGE_FILES)
        if limit is not None and limit < NO_LIMIT:
            yield max(0, limit - max(0, (usage or 0) - _droppable_bytes(folder)))


def own_groups() -> Iterator[Path]:
    """The folders of the memory groups that this process is in, up to the root, in either version;
    in a container the innermost is often mounted as the root."""
    yield from (CGROUPS, CGROUPS / "memory")
    try:
        lines = OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUPS / "memory" if controllers else CGROUPS
        group = root / path.lstrip("/")
        while group != root and root in group.parents:
            yield group
            group = group.parent


def _number(folder: Path, names: tuple[str, ...]) -> int | None:
    for name in names:
        try:
            return int((folder / name).read_text())
        except (OSError, ValueError):  # not this version, or "max"
            continue
    return None


def _droppable_bytes(folder: Path) -> int:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    stat = dict(line.split(maxsplit=1) for line in lines)
    # Version 1 counts what is below a group in `total_`, version 2 always does.
    return int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
