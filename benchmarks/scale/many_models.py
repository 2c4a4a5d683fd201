"""A real router before a growing number of model applications: what each costs it.

Few of the applications have a replica, since each is a process of 100 MB; the others have scaled to
zero, as rarely used models do. Every replica that runs is asked.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ray import serve

from benchmarks.cpu_use import cpu_s
from benchmarks.scale import arrivals, echoes
from benchmarks.stack import Stack, running
from benchmarks.summary import percentile
from serve_app.serve_status import ServeController, ServeStatus

MEGABYTE = 1e6
NUM_STATUS_READS = 3


@dataclass(frozen=True, slots=True)
class Step:
    """What so many applications cost. CPU is that of the process that is named."""

    num_applications: int
    num_running: int
    router_rss_mb: float
    router_shared_mb: float  # of that, libraries' pages and those of Ray's object store
    router_idle_cpu: float  # CPU seconds per second, with nothing to do but to look
    controller_idle_cpu: float
    request_cpu_ms: float  # of the router, for a request, beyond what it uses while idle
    answer_p50_ms: float
    look_cpu_ms: float  # of whoever looks, where nothing has changed
    public_look_cpu_ms: float  # the same by serve.status()
    num_failures: int


def measure(folder: Path, counts: Sequence[int], num_running: int, share: float) -> list[Step]:
    """A step for each count of applications. Raises: RuntimeError or TimeoutError."""
    stack = echoes.stack(folder, 1, r0=echoes.RUNNING)
    with running([stack]), echoes.connected(stack):
        return list(_steps(stack, counts, num_running, share))


def _steps(stack: Stack, counts: Sequence[int], num_running: int, share: float) -> Iterator[Step]:
    names = ["r0"]
    for count in counts:
        grown = [f"r{i}" for i in range(len(names), min(count, num_running))]
        cold = [f"c{i}" for i in range(len(names) + len(grown), count)]
        for more, args in ((grown, echoes.RUNNING), (cold, echoes.COLD)):
            if more:
                echoes.add(more, args)
                names += more
        echoes.wait_for(stack, names)
        yield _step(stack, names, share)


def _step(stack: Stack, names: Sequence[str], share: float) -> Step:
    asked = [name for name in names if name.startswith("r")]
    router = echoes.router(stack)
    (controller,) = echoes.processes(stack, echoes.CONTROLLER)
    bodies = [_body(name) for name in asked]
    num_requests = max(round(1000 * share), 2 * len(bodies))
    asyncio.run(arrivals.in_turn(stack.url, bodies, num_requests // 2, 4))  # warm-up
    time.sleep(2)
    idle = _idle([router, controller], 10 * share)
    before_s = cpu_s(router)
    elapsed_s, samples = asyncio.run(arrivals.in_turn(stack.url, bodies, num_requests, 4))
    request_cpu_s = (cpu_s(router) - before_s - idle[0] * elapsed_s) / num_requests
    return Step(
        num_applications=len(names),
        num_running=len(asked),
        router_rss_mb=router.memory_info().rss / MEGABYTE,
        router_shared_mb=router.memory_info().shared / MEGABYTE,
        router_idle_cpu=idle[0],
        controller_idle_cpu=idle[1],
        request_cpu_ms=1000 * request_cpu_s,
        answer_p50_ms=1000 * percentile([s.answer_s for s in samples], 50),
        look_cpu_ms=_look_cpu_ms(len(names)),
        public_look_cpu_ms=_cpu_ms(serve.status, NUM_STATUS_READS),
        num_failures=sum(not s.accepted for s in samples),
    )


def _body(name: str) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": "one two three four"}]}


def _idle(processes: Sequence[psutil.Process], lasts_s: float) -> list[float]:
    before_s = [cpu_s(process) for process in processes]
    time.sleep(lasts_s)
    return [(cpu_s(p) - b) / lasts_s for p, b in zip(processes, before_s, strict=True)]


def _look_cpu_ms(num_applications: int) -> float:
    """A second look, at what the first has read. Raises: RuntimeError if it read less."""
    status = ServeStatus(ServeController())
    if len(status.read()) < num_applications:
        raise RuntimeError("the controller does not tell of every application")
    return _cpu_ms(status.read, 20)


def _cpu_ms(look: Any, times: int) -> float:
    """Of this process, with all its threads."""
    before_s = time.process_time()
    for _ in range(times):
        look()
    return 1000 * (time.process_time() - before_s) / times
