"""A real router before a growing number of model applications: what each costs it.

One of the applications has a replica; the others have scaled to zero, as rarely used models do. At
last a few more have one, since each is a process of 100 MB. What a request costs is measured twice:
all of them for the one model that is there from the beginning, and one running model after another.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from ray import serve

from benchmarks.cpu_use import cpu_s
from benchmarks.polling import until
from benchmarks.scale import arrivals, echoes
from benchmarks.scale.echoes import DEPLOY_LIMIT_S
from benchmarks.stack import Stack, running
from benchmarks.summary import percentile
from serve_app.serve_status import ServeController, ServeStatus

MEGABYTE = 1e6
NUM_STATUS_READS = 3
NUM_SLICES = 3  # of each load; the median counts


@dataclass(frozen=True, slots=True)
class Step:
    """What so many applications cost. CPU is that of the process that is named."""

    num_applications: int
    num_running: int
    router_own_mb: float  # pages of the process alone
    router_shared_mb: float  # libraries' pages, and those of Ray's object store
    router_idle_cpu: float  # CPU seconds per second, with nothing to do but to look
    controller_idle_cpu: float
    request_cpu_ms: float  # of the router, for a request to one model, beyond its idle use
    spread_cpu_ms: float  # the same, where each request is for the next model that runs
    answer_p50_ms: float  # of the former
    look_cpu_ms: float  # of whoever looks, where nothing has changed
    public_look_cpu_ms: float  # the same by serve.status()
    num_failures: int


def measure(folder: Path, counts: Sequence[int], num_running: int, share: float) -> list[Step]:
    """A step for each count of applications, from 1, of which one runs; then one with more, so that
    `num_running` do. Raises: RuntimeError or TimeoutError."""
    stack = echoes.stack(folder, 1, r0=echoes.RUNNING)
    with running([stack]), echoes.connected(stack):
        return list(_steps(stack, counts, num_running, share))


def _steps(stack: Stack, counts: Sequence[int], num_running: int, share: float) -> Iterator[Step]:
    names = ["r0"]
    echoes.wait_for(stack, names)
    yield _step(stack, names, share)
    more = [([f"c{i}" for i in range(1, count)], echoes.COLD) for count in counts[1:]]
    for wanted, args in (*more, ([f"r{i}" for i in range(1, num_running)], echoes.RUNNING)):
        new = [name for name in wanted if name not in names]
        if new:
            echoes.add(new, args)
            names += new
            echoes.wait_for(stack, new)
            yield _step(stack, names, share)


def _step(stack: Stack, names: Sequence[str], share: float) -> Step:
    asked = [name for name in names if name.startswith("r")]
    router = echoes.router(stack)
    (controller,) = echoes.processes(stack, echoes.CONTROLLER)
    num_requests = max(round(500 * share), 2 * len(asked))
    asyncio.run(arrivals.in_turn(stack.url, list(map(_body, asked)), num_requests, 4))  # warm-up
    time.sleep(2)
    idle = _idle([router, controller], 10 * share)
    one, spread = (
        [_load(stack, who, num_requests, idle[0]) for _ in range(NUM_SLICES)]
        for who in (asked[:1], asked)
    )
    samples = [sample for load in one for sample in load.samples]
    others = [sample for load in spread for sample in load.samples]
    memory = router.memory_full_info()
    return Step(
        num_applications=len(names),
        num_running=len(asked),
        router_own_mb=memory.uss / MEGABYTE,
        router_shared_mb=(memory.rss - memory.uss) / MEGABYTE,
        router_idle_cpu=idle[0],
        controller_idle_cpu=idle[1],
        request_cpu_ms=median(load.cpu_ms for load in one),
        spread_cpu_ms=median(load.cpu_ms for load in spread),
        answer_p50_ms=1000 * percentile([s.answer_s for s in samples], 50),
        look_cpu_ms=_look_cpu_ms(len(names)),
        public_look_cpu_ms=_cpu_ms(serve.status, NUM_STATUS_READS),
        num_failures=sum(not s.accepted for s in (*samples, *others)),
    )


@dataclass(frozen=True, slots=True)
class _Load:
    cpu_ms: float  # of the router, for a request, beyond what it uses while idle
    samples: Sequence[arrivals.Sample]


def _load(stack: Stack, asked: Sequence[str], num_requests: int, idle_cpu: float) -> _Load:
    router, bodies = echoes.router(stack), [_body(name) for name in asked]
    before_s = cpu_s(router)
    elapsed_s, samples = asyncio.run(arrivals.in_turn(stack.url, bodies, num_requests, 4))
    used_s = cpu_s(router) - before_s - idle_cpu * elapsed_s
    return _Load(1000 * used_s / num_requests, samples)


def _body(name: str) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": "one two three four"}]}


def _idle(processes: Sequence[psutil.Process], lasts_s: float) -> list[float]:
    before_s = [cpu_s(process) for process in processes]
    time.sleep(lasts_s)
    return [(cpu_s(p) - b) / lasts_s for p, b in zip(processes, before_s, strict=True)]


def _look_cpu_ms(num_applications: int) -> float:
    """A second look, at what the first has read. Raises: TimeoutError if it reads less."""
    status = ServeStatus(ServeController())

    def is_read() -> bool:
        with suppress(TimeoutError):  # of a controller that is busy; what was read stays read
            return len(status.read()) > num_applications  # the router's own is among them
        return False

    until(is_read, DEPLOY_LIMIT_S, 0.5)
    return _cpu_ms(status.read, 20)


def _cpu_ms(look: Any, times: int) -> float:
    """Of this process, with all its threads."""
    before_s = time.process_time()
    for _ in range(times):
        look()
    return 1000 * (time.process_time() - before_s) / times
