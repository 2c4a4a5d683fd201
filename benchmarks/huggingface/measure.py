"""Our engine for Hugging Face models beside what transformers has, on the demo model, in one run.

Every contender has a process of its own, and one at a time works, the others paused: A B C A B C.
Servers are started several times meanwhile: the pace of one differs from start to start. It judges
the bars of issue 3 that need no GPU.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import msgspec
import psutil
import uvloop

from benchmarks.huggingface import servers as hf_servers
from benchmarks.huggingface.work import NUM_REQUESTS, endless_checkpoint, requests
from benchmarks.machine import Machine, this_machine
from benchmarks.stack import OFFLINE, ROOT, Stack, running

# As in contenders.py, which imports torch.
OURS, CONTINUOUS = "ours", "continuous batching"
STATIC = ("static generate, all 32", "static generate, 4 x 8")
ENGINES = (OURS, CONTINUOUS, *STATIC)
MILLISECONDS = ("gap_before_p50_ms", "gap_before_ms", "gap_after_ms", "chunk_ms")


@dataclass(frozen=True, slots=True)
class Pass:
    """The whole work done once by one contender."""

    repetition: int
    contender: str
    num_tokens: int
    wall_s: float
    cpu_s: float
    others_share: float  # of a core, used by everything else on the machine
    failures: dict[str, int]
    start: int = 0  # which one of the servers'


@dataclass(frozen=True, slots=True)
class Found:
    """All that one run found. `stalls` are the milliseconds of stall.py, for each repetition."""

    machine: Machine
    took_s: float
    passes: list[Pass]
    stalls: list[dict[str, float]]


class Worker:
    """A contender's process (worker.py)."""

    def __init__(self, name: str, checkpoint: Path, log: Path) -> None:
        self.name = name
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.huggingface.worker", name, str(checkpoint)],
                cwd=ROOT,
                env={**os.environ, **OFFLINE, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._log = log

    def ask(self, what: str) -> dict[str, float]:
        """Raises: RuntimeError if the process has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, float]:
        """Its next answer; libraries may write other lines. Raises: RuntimeError."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, float] = msgspec.json.decode(line)
                return found
        raise RuntimeError(f"{self.name} ended:\n{self._log.read_text()[-3000:]}")

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()


def measure(num_repetitions: int, num_starts: int, limit_s: float) -> Found:
    """Of engines and of servers no repetition but the first begins after a third of `limit_s`, or
    all of it. Those of the servers are spread over `num_starts`; 0 is without servers.

    Raises: RuntimeError or TimeoutError for a contender that does not start.
    """
    began_s, machine = time.monotonic(), this_machine()
    engines_until_s, servers_until_s = began_s + limit_s / 3, began_s + limit_s
    with tempfile.TemporaryDirectory(prefix="roundhouse-benchmark-") as name:
        checkpoint = endless_checkpoint(Path(name) / "demo")
        passes, stalls = _engines(checkpoint, num_repetitions, engines_until_s)
        for start, of_it in enumerate(spread(num_repetitions, num_starts)):
            if start and time.monotonic() > servers_until_s:
                break
            passes += _servers(checkpoint, start, of_it, servers_until_s)
    return Found(machine, time.monotonic() - began_s, passes, stalls)


def _engines(
    checkpoint: Path, count: int, until_s: float
) -> tuple[list[Pass], list[dict[str, float]]]:
    passes, stalls = [], []
    with _workers(checkpoint) as workers:
        for repetition in _repetitions(count, until_s):
            _say(f"engines, repetition {repetition + 1} of {count}")
            passes += [_engine_pass(worker, repetition) for worker in workers]
            stalls.append(workers[0].ask("stall"))
    return passes, stalls


@contextmanager
def _workers(checkpoint: Path) -> Iterator[list[Worker]]:
    _say("the engines are starting")
    with ExitStack() as stops:
        workers = []
        for number, name in enumerate(ENGINES):
            worker = Worker(name, checkpoint, checkpoint.with_name(f"worker-{number}.log"))
            stops.callback(worker.stop)
            workers.append(worker)
        for worker in workers:
            worker.answer()
        yield workers


def _engine_pass(worker: Worker, repetition: int) -> Pass:
    before_s = _machine_cpu_s()
    found = worker.ask("run")
    others = max(0.0, _machine_cpu_s() - before_s - found["cpu_s"]) / found["wall_s"]
    num_tokens = int(found["num_tokens"])
    missing = sum(asked.num_tokens for asked in requests()) - num_tokens
    failures = {"tokens missing": missing} if missing else {}
    wall_s, cpu_s = found["wall_s"], found["cpu_s"]
    return Pass(repetition, worker.name, num_tokens, wall_s, cpu_s, others, failures)


def spread(num_repetitions: int, num_starts: int) -> list[range]:
    """The repetitions of each start: at least one, and of no start two more than of another."""
    count = min(num_repetitions, num_starts)
    ends = [num_repetitions * start // count for start in range(count + 1)] if count else []
    return [range(*pair) for pair in pairwise(ends)]


def _servers(checkpoint: Path, start: int, of_it: range, until_s: float) -> list[Pass]:
    _say(f"the servers are starting, start {start + 1}")
    stacks = hf_servers.servers(checkpoint)
    passes = []
    with running(stacks):
        for stack in stacks:  # what a server does for the first time is not its pace
            _server_pass(stack, stacks, 0, checkpoint)
        for number in _repetitions(len(of_it), until_s):
            repetition = of_it[number]
            _say(f"servers, repetition {repetition + 1}")
            found = [_server_pass(stack, stacks, repetition, checkpoint) for stack in stacks]
            passes += [replace(done, start=start) for done in found]
    return passes


def _server_pass(stack: Stack, stacks: list[Stack], repetition: int, checkpoint: Path) -> Pass:
    with ExitStack() as paused:
        for idle in stacks:
            if idle is not stack:
                paused.enter_context(idle.paused())
        before_s = _machine_cpu_s()
        served = uvloop.run(hf_servers.measured(stack, checkpoint))
        # With the warm-up, and the client: an upper bound.
        others = max(0.0, _machine_cpu_s() - before_s - served.cpu_s) / served.wall_s
    wall_s, cpu_s = served.wall_s, served.cpu_s
    return Pass(repetition, stack.name, served.num_tokens, wall_s, cpu_s, others, served.failures)


def _repetitions(count: int, until_s: float) -> Iterator[int]:
    for repetition in range(count):
        if repetition and time.monotonic() > until_s:
            return
        yield repetition


def _machine_cpu_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice)


def _say(what: str) -> None:
    print(f"benchmark: {what} ({NUM_REQUESTS} requests each)", file=sys.stderr, flush=True)
