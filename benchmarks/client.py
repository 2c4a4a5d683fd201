"""What each HTTP client costs that deployments/api.py could be built on: the ground for its choice.

The upstream is a process of its own; CPU seconds are those of this process, the client's, alone.
An answer that fails or has the wrong size ends the benchmark.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import uvloop

from benchmarks.api_clients import CLIENTS, ApiClient
from benchmarks.closed_loop import closed_loop
from benchmarks.machine import Machine, this_machine
from benchmarks.report import Report, number
from benchmarks.table import Table
from benchmarks.upstream import EVENTS, NUM_CHUNKS, WHOLE

CONCURRENCY = 32
NUM_REQUESTS = 1500
NUM_WARM_UP = 3 * CONCURRENCY
ANSWERS = {f"{NUM_CHUNKS}-chunk stream": True, "whole answer": False}
REFERENCE = next(iter(CLIENTS))


@dataclass(frozen=True, slots=True)
class Cost:
    """One client reading one kind of answer, at a concurrency of 32, once."""

    answer: str
    client: str
    requests_per_s: float
    cpu_s_per_1000_requests: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that one run found."""

    machine: Machine
    num_repetitions: int
    costs: list[Cost]


def measure(num_repetitions: int, share: float) -> Comparison:
    """Raises: whatever a client raises."""
    machine = this_machine()
    num_requests = max(CONCURRENCY, round(NUM_REQUESTS * share))
    with upstream() as base_url:
        costs = [
            uvloop.run(_cost(name, answer, base_url, num_requests))
            for _ in range(num_repetitions)
            for answer in ANSWERS
            for name in CLIENTS
        ]
    return Comparison(machine, num_repetitions, costs)


@contextmanager
def upstream() -> Iterator[str]:
    """The upstream's base URL, while it runs."""
    command = [sys.executable, "-m", "benchmarks.upstream"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        # Leaving closes its input, which ends it.


async def _cost(name: str, answer: str, base_url: str, num_requests: int) -> Cost:
    client: ApiClient = CLIENTS[name]()
    await client.start(base_url)
    stream = ANSWERS[answer]
    try:
        await _read(client, stream, NUM_WARM_UP)
        cpu_s = time.process_time()
        elapsed_s = await _read(client, stream, num_requests)
        cpu_s = time.process_time() - cpu_s
    finally:
        await client.stop()
    return Cost(answer, name, num_requests / elapsed_s, 1000 * cpu_s / num_requests)


async def _read(client: ApiClient, stream: bool, num_requests: int) -> float:
    """Seconds for so many answers. Raises: RuntimeError for one that is not whole."""
    messages = [{"role": "user", "content": "hello"}]
    body = json.dumps({"model": "demo", "messages": messages, "stream": stream}).encode()
    elapsed_s, sizes = await closed_loop(lambda _: client.read(body), num_requests, CONCURRENCY)
    if set(sizes) != {sum(map(len, EVENTS)) if stream else len(WHOLE)}:
        raise RuntimeError(f"answers of {sorted(set(sizes))} bytes")
    if len(sizes) != num_requests:
        raise RuntimeError(f"only {len(sizes)} of {num_requests} requests in time")
    return elapsed_s


def report_of(found: Comparison) -> Report:
    notes = [
        f"{found.machine.described()}.",
        f"Repetitions, interleaved: {found.num_repetitions}; medians; {CONCURRENCY} at a time; "
        "CPU seconds of the client's process alone.",
    ]
    return Report("client", notes, [_table(found.costs)])


def _table(costs: Sequence[Cost]) -> Table:
    rows: list[tuple[str, ...]] = []
    for answer in ANSWERS:
        reference = _median(costs, answer, REFERENCE)
        for name in CLIENTS:
            rate, cpu_s = _median(costs, answer, name)
            rows.append(
                (
                    f"{answer}: {name}",
                    number(rate),
                    number(rate / reference[0]),
                    number(cpu_s),
                    number(cpu_s / reference[1]),
                )
            )
    header = ("answer: client", "requests/s", "ratio", "CPU s per 1000 requests", "ratio")
    return Table(header, rows)


def _median(costs: Sequence[Cost], answer: str, client: str) -> tuple[float, float]:
    """Requests per second, and CPU seconds per 1000 requests."""
    found = [cost for cost in costs if (cost.answer, cost.client) == (answer, client)]
    return (
        median(cost.requests_per_s for cost in found),
        median(cost.cpu_s_per_1000_requests for cost in found),
    )
