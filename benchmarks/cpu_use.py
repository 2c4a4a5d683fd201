"""Who used the processor while something was measured: each stack, the client, and others.

A run on a machine that others use, or beside a stack that is idle but not free, says so by this.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from benchmarks.stacks import Stack

IDLE_FIELDS = ("idle", "iowait", "steal", "guest", "guest_nice")  # guests are counted in user


@dataclass(frozen=True, slots=True)
class Snapshot:
    """CPU seconds used so far."""

    at_s: float
    machine_s: float
    client_s: float
    stacks_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class CpuUse:
    """CPU seconds over an interval; `others_s` is what neither the stacks nor the client used."""

    elapsed_s: float
    client_s: float
    others_s: float
    stacks_s: dict[str, float]


def snapshot(stacks: Sequence[Stack]) -> Snapshot:
    machine = psutil.cpu_times()._asdict()
    busy_s = sum(seconds for name, seconds in machine.items() if name not in IDLE_FIELDS)
    used_s = {stack.name: stack_cpu_s(stack) for stack in stacks}
    return Snapshot(time.perf_counter(), busy_s, time.process_time(), used_s)


def between(before: Snapshot, after: Snapshot) -> CpuUse:
    stacks_s = {name: after.stacks_s[name] - used_s for name, used_s in before.stacks_s.items()}
    client_s = after.client_s - before.client_s
    ours_s = client_s + sum(stacks_s.values())
    return CpuUse(
        elapsed_s=after.at_s - before.at_s,
        client_s=client_s,
        others_s=max(0.0, after.machine_s - before.machine_s - ours_s),
        stacks_s=stacks_s,
    )


def stack_cpu_s(stack: Stack) -> float:
    """What the living processes of a stack have used."""
    total_s = 0.0
    for process in stack.processes():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total_s += times.user + times.system
    return total_s
