"""A cap on the memory of this process: a control group where one can be made, else RLIMIT_DATA."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from deployments.placement import machine


@contextlib.contextmanager
def capped(num_bytes: int) -> Iterator[str]:
    """Lets this process take no more than `num_bytes` beyond what it has; yields the way."""
    groups = [folder for folder in machine.own_groups() if (folder / "tasks").exists()]
    folder = (groups or [Path("/no-groups")])[-1] / f"roundhouse-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "cgroup.procs").write_text(str(os.getpid()))
        # What was taken before is not charged to the new group.
        (folder / "memory.limit_in_bytes").write_text(str(num_bytes))
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        limit = status("VmData") + num_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        yield "rlimit"
        return
    try:
        yield "cgroup"
    finally:
        (folder.parent / "cgroup.procs").write_text(str(os.getpid()))
        folder.rmdir()


def forget_peak() -> None:
    """Lets the peak of resident memory, `status("VmHWM")`, begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def status(field: str) -> int:
    """Bytes that the kernel counts for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
