"""Which cores a CPU engine takes, and which the process that serves its answers.

vLLM binds its CPU workers to cores, but neither the process that feeds them, and waits for them in
a loop, nor the one that makes and sends the answers, which is this one. Where cores are few these
drive the workers off theirs: benchmarks/RESULTS.md has what that costs.
"""

import os
from contextlib import suppress

import psutil


class EngineCores:
    """The cores of this process, given up and taken back."""

    def __init__(self) -> None:
        self._before: set[int] | None = None

    def settle(self) -> None:
        """Puts each engine process beside its workers, since it works while they wait, and this
        process on the cores that they leave, if they leave any."""
        if not hasattr(os, "sched_setaffinity"):
            return
        own = os.sched_getaffinity(0)
        engines = {child.pid: workers_cores(child, own) for child in psutil.Process().children()}
        left = own.difference(*engines.values())
        if left == own or not left:
            return
        for pid, cores in engines.items():
            if cores:
                bind(pid, cores)
        self._before = own
        bind(os.getpid(), left)

    def release(self) -> None:
        """Takes back what was given up. Callable at any time, more than once."""
        before, self._before = self._before, None
        if before is not None:
            bind(os.getpid(), before)


def workers_cores(engine: psutil.Process, own: set[int]) -> set[int]:
    """The cores that the engine's workers have been bound to: fewer than there are."""
    cores: set[int] = set()
    for worker in engine.children():
        with suppress(psutil.NoSuchProcess):
            bound = set(worker.cpu_affinity())
            cores |= bound if bound < own else set()
    return cores


def bind(pid: int, cores: set[int]) -> None:
    """Binds every thread of a process, and so those that they will start."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), cores)
