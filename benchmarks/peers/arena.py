"""The stacks of one path while they are up, one at a time loaded and the others paused."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from benchmarks import cpu_use
from benchmarks.load import Load
from benchmarks.peers.contenders import UPSTREAM, Contender
from benchmarks.peers.figures import figures_of
from benchmarks.peers.sessions import HandleDriver, handle_driver, over_http
from benchmarks.stack import Stack
from benchmarks.summary import Record

SETTLE_S = 0.7  # for what a stack has to catch up with after a pause


@dataclass(slots=True)
class Arena:
    """Stacks by the name of the contender that started them. `failed` tells who is not up, and
    why."""

    contenders: Sequence[Contender]
    stacks: dict[str, Stack] = field(default_factory=dict)
    drivers: dict[str, HandleDriver] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def ready(self) -> list[Contender]:
        return [one for one in self.contenders if one.name not in self.failed]

    def stack(self, contender: Contender) -> Stack:
        return self.stacks[contender.stack or contender.name]

    def record(self, contender: Contender, load: Load, repetition: int) -> Record:
        """Runs a load once. Raises: RuntimeError if a driver has ended."""
        stack, everyone = self.stack(contender), list(self.stacks.values())
        load = replace(load, **contender.asks)
        with ExitStack() as held:
            for idle in everyone:
                if idle is not stack and idle.name != UPSTREAM:
                    held.enter_context(idle.paused())
            time.sleep(SETTLE_S)
            if contender.by_handle:
                session = held.enter_context(self.drivers[contender.name].session(load))
            else:
                session = held.enter_context(over_http(stack.url, load))
            session.warm_up()
            before = cpu_use.snapshot(everyone)
            run = session.measure()
            cpu = cpu_use.between(before, cpu_use.snapshot(everyone))
        loaded_cpu_s = None if stack.name == UPSTREAM else cpu.of(stack.name)
        return Record(
            repetition=repetition,
            stack=contender.name,
            load=load.name,
            num_requests=len(run.samples),
            failures=run.failures,
            figures=figures_of(run, loaded_cpu_s),
            cpu=_as_of(cpu, stack.name, contender.name) if contender.by_handle else cpu,
        )

    def peak_bytes(self) -> dict[str, int]:
        """The peaks of all processes of each stack, added up: since their start, and what they
        share counted for each of them."""
        return {
            name: sum(map(_peak_bytes, stack.processes())) for name, stack in self.stacks.items()
        }

    def shared_bytes(self) -> dict[str, int]:
        """What each stack's processes have now, what several share counted once (PSS)."""
        return {
            name: sum(map(_pss_bytes, stack.processes())) for name, stack in self.stacks.items()
        }


@contextmanager
def arena(
    contenders: Sequence[Contender], folder: Path, others: Sequence[Stack] = ()
) -> Iterator[Arena]:
    """All who can be started, with `others` that they need; whatever happens, none is left."""
    found = Arena(contenders)
    with ended_together() as started, ExitStack() as drivers:
        for stack in others:
            started.append(stack)
            stack.start()
            stack.wait_until_ready()
            found.stacks[stack.name] = stack
        starting = [one for one in contenders if one.start is not None]
        for contender in starting:
            _try(found, contender, lambda one=contender: _start(found, one, folder, started))
        for contender in starting:
            if contender.name in found.stacks:
                _try(found, contender, found.stacks[contender.name].wait_until_ready)
        for contender in contenders:
            if contender.stack and contender.stack not in found.stacks:
                found.failed[contender.name] = f"{contender.stack} is not up"
            elif contender.by_handle:
                _try(found, contender, lambda one=contender: _join(found, one, drivers))
        yield found


@contextmanager
def ended_together() -> Iterator[list[Stack]]:
    """A list of stacks to append to; at the end all are ended at once, since each takes a while."""
    started: list[Stack] = []
    try:
        yield started
    finally:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Stack.stop, started))


def _start(found: Arena, contender: Contender, folder: Path, started: list[Stack]) -> None:
    assert contender.start is not None
    if contender.environment is not None:
        contender.environment.install()
    stack = contender.start(folder)
    started.append(stack)
    stack.start()
    found.stacks[contender.name] = stack


def _join(found: Arena, contender: Contender, drivers: ExitStack) -> None:
    driver = handle_driver(found.stack(contender))
    found.drivers[contender.name] = drivers.enter_context(driver)


def _try(found: Arena, contender: Contender, step: Callable[[], None]) -> None:
    """One that does not start is told of; the others go on."""
    try:
        step()
    except (RuntimeError, OSError, TimeoutError) as error:
        print(f"benchmark: {contender.name} takes no part: {error}", file=sys.stderr, flush=True)
        found.failed[contender.name] = str(error) or type(error).__name__
        if stack := found.stacks.pop(contender.name, None):
            stack.stop()


def _as_of(cpu: cpu_use.CpuUse, stack: str, contender: str) -> cpu_use.CpuUse:
    """What a stack used under the name of the contender that had it do so."""
    used = {contender if name == stack else name: s for name, s in cpu.stacks_s.items()}
    return replace(cpu, stacks_s=used)


def _peak_bytes(process: psutil.Process) -> int:
    """The kernel's own mark; 0 for a process that is gone."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    return 0


def _pss_bytes(process: psutil.Process) -> int:
    """0 for a process that is gone."""
    with suppress(psutil.Error, OSError):
        return int(process.memory_full_info().pss)
    return 0
