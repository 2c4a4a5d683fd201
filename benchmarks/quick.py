"""The quick benchmark: bare vLLM and Roundhouse on one machine, side by side in one run.

Both are up all the time, and one at a time is loaded while the other is paused: A B A B for every
load, in every repetition. It judges the bars against bare vLLM; other peers: `benchmarks/peers`.
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop

from benchmarks import cpu_use, router_cost, stacks, summary
from benchmarks.bars import STREAMS_AT_1, STREAMS_AT_32, Bar, RouterCost, bars
from benchmarks.load import Client, Load
from benchmarks.machine import Machine, this_machine
from benchmarks.priority import client_first
from benchmarks.stack import Stack, running
from benchmarks.summary import Record, Row, failures_of

SETTLE_S = 0.5  # for what a stack has to catch up with after a pause
STOP_S = 15.0  # what it takes to end both stacks

Pair = tuple[Stack, Stack]

LOADS = (
    Load("1-token answers, c=1", stream=False, max_tokens=1, concurrency=1, num_requests=150),
    Load("1-token answers, c=32", stream=False, max_tokens=1, concurrency=32, num_requests=960),
    Load(STREAMS_AT_1, stream=True, max_tokens=64, concurrency=1, num_requests=20),
    Load(STREAMS_AT_32, stream=True, max_tokens=64, concurrency=32, num_requests=192),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. No repetition but the first begins if it would end after `limit_s`."""

    num_repetitions: int
    share: float  # of each load's requests
    limit_s: float


@dataclass(frozen=True, slots=True)
class Quick:
    """All that one run of the quick benchmark found."""

    machine: Machine
    took_s: float
    num_repetitions: int
    has_priority: bool  # the client, over all other processes
    bars: list[Bar]
    rows: list[Row]
    router: RouterCost
    records: list[Record]

    @property
    def failures(self) -> Counter[tuple[str, str, str]]:
        """Requests that failed, by stack, load and reason."""
        return failures_of(self.records)


def scaled(share: float) -> list[Load]:
    """The loads with this share of their requests, but every client asks at least twice."""
    return [
        replace(load, num_requests=max(2 * load.concurrency, round(load.num_requests * share)))
        for load in LOADS
    ]


def measure(plan: Plan) -> Quick:
    """Starts both stacks, runs every load on each, as often as planned, and ends them.

    Raises: RuntimeError or TimeoutError for a stack that does not start.
    """
    began_s = time.monotonic()
    machine = this_machine()
    with tempfile.TemporaryDirectory(prefix="roundhouse-benchmark-") as name:
        folder = Path(name)
        _say("the router alone")
        import_s, start = router_cost.import_s(), router_cost.start(folder)
        _say("both stacks are starting")
        bare, ours = stacks.bare_vllm(folder), stacks.roundhouse(folder)
        with running([bare, ours]):
            has_priority = client_first()
            records = list(_records((bare, ours), plan, began_s))
            memory = router_cost.memory(ours)
    rows, router = summary.rows_of(records), RouterCost(import_s, start, memory)
    num_failures = sum(sum(record.failures.values()) for record in records)
    return Quick(
        machine=machine,
        took_s=time.monotonic() - began_s,
        num_repetitions=1 + max(record.repetition for record in records),
        has_priority=has_priority,
        bars=bars(rows, router, num_failures),
        rows=rows,
        router=router,
        records=records,
    )


def _records(pair: Pair, plan: Plan, began_s: float) -> Iterator[Record]:
    """Repetition by repetition, while there is time for another, and for the end."""
    took_s = 0.0
    for repetition in range(plan.num_repetitions):
        repetition_began_s = time.monotonic()
        if repetition and repetition_began_s + took_s + STOP_S > began_s + plan.limit_s:
            _say(f"no time for more than {repetition} repetitions")
            return
        _say(f"repetition {repetition + 1} of {plan.num_repetitions}")
        yield from _repetition(repetition, scaled(plan.share), pair)
        took_s = time.monotonic() - repetition_began_s


def _repetition(repetition: int, loads: Sequence[Load], pair: Pair) -> Iterator[Record]:
    for load in loads:
        for loaded, idle in (pair, pair[::-1]):
            with idle.paused():
                yield uvloop.run(_record(loaded, load, repetition, pair))


async def _record(stack: Stack, load: Load, repetition: int, pair: Pair) -> Record:
    await asyncio.sleep(SETTLE_S)
    async with Client(stack.url, load) as client:
        await client.warm_up()
        before = cpu_use.snapshot(pair)
        run = await client.measure()
        cpu = cpu_use.between(before, cpu_use.snapshot(pair))
    return Record(
        repetition=repetition,
        stack=stack.name,
        load=load.name,
        num_requests=len(run.samples),
        failures=run.failures,
        figures=summary.figures_of(run, cpu.of(stack.name)),
        cpu=cpu,
    )


def _say(what: str) -> None:
    print(f"benchmark: {what}", file=sys.stderr, flush=True)
