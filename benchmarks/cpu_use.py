"""Who used the processor while something was measured: each stack's processes, the client, others.

A run on a machine that others use says so by this, and where a stack's time goes is seen here.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.stack import Stack

MAX_TITLE_CHARS = 50


@dataclass(frozen=True, slots=True)
class Snapshot:
    """CPU seconds used so far; those of a stack by the titles of its living processes."""

    at_s: float
    machine_s: float
    client_s: float
    stacks_s: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class CpuUse:
    """CPU seconds over an interval; `others_s` is what neither the stacks nor the client used."""

    elapsed_s: float
    client_s: float
    others_s: float
    stacks_s: dict[str, dict[str, float]]

    def of(self, stack: str) -> float:
        """What all processes of a stack used."""
        return sum(self.stacks_s[stack].values())


def snapshot(stacks: Sequence[Stack]) -> Snapshot:
    machine_s = sum(cpu_s(process) for process in psutil.process_iter())
    used_s = {stack.name: used_by(stack) for stack in stacks}
    return Snapshot(time.perf_counter(), machine_s, time.process_time(), used_s)


def between(before: Snapshot, after: Snapshot) -> CpuUse:
    stacks_s = {
        name: {title: s - before.stacks_s[name].get(title, 0.0) for title, s in used_s.items()}
        for name, used_s in after.stacks_s.items()
    }
    client_s = after.client_s - before.client_s
    ours_s = client_s + sum(sum(used_s.values()) for used_s in stacks_s.values())
    return CpuUse(
        elapsed_s=after.at_s - before.at_s,
        client_s=client_s,
        others_s=max(0.0, after.machine_s - before.machine_s - ours_s),
        stacks_s=stacks_s,
    )


def used_by(stack: Stack) -> dict[str, float]:
    """Seconds by the title of the process."""
    used_s: dict[str, float] = {}
    for process in stack.processes():
        with suppress(psutil.NoSuchProcess):
            name = title_of(process)
            used_s[name] = used_s.get(name, 0.0) + cpu_s(process)
    return used_s


def cpu_s(process: psutil.Process) -> float:
    """Its own seconds and those of its children that have ended, so that none is lost.

    The kernel's count for the whole machine will not do: it is sampled, and processes that wait in
    a loop mislead it.
    """
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


def title_of(process: psutil.Process) -> str:
    """What a process calls itself, or what its Python runs."""
    name, *arguments = process.cmdline() or [process.name()]
    if "::" in name:  # Ray's workers, with the method that they run after a dot, and vLLM's engine
        return name.split(".")[0].strip()
    if not Path(name).name.startswith("python"):
        return process.name()
    program = next((word for word in arguments if not word.startswith("-")), name)
    return Path(program).name[:MAX_TITLE_CHARS]
