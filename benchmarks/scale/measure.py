"""The run itself: many models, one router and two, and a model that is asked too much."""

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import Machine, this_machine
from benchmarks.priority import client_first
from benchmarks.scale import many_models, memory, overload, routers

COUNTS = (1, 50, 200)
OVERLOAD_S = 20.0


@dataclass(frozen=True, slots=True)
class Scale:
    """All that one run found. `kept` is in this process, the rest on real Serve instances."""

    machine: Machine
    took_s: float
    has_priority: bool  # the client, over all other processes
    kept: list[memory.Kept]
    steps: list[many_models.Step]
    routers: list[routers.Throughput]
    overload: overload.Overload


def measure(share: float, num_running: int, counts: Sequence[int] = COUNTS) -> Scale:
    """Raises: RuntimeError or TimeoutError for a stack that does not start."""
    began_s, machine = time.monotonic(), this_machine()
    with tempfile.TemporaryDirectory(prefix="roundhouse-benchmark-") as name:
        folder = Path(name)
        _say("what a router keeps for a model")
        kept = memory.measure(counts)
        has_priority = client_first()
        _say(f"{max(counts)} models, at last {num_running} of them with a replica")
        steps = many_models.measure(_made(folder, "models"), counts, num_running, share)
        _say("one router, and two")
        throughputs = routers.measure(_made(folder, "routers"), share)
        _say("a model that is asked too much")
        overloaded = overload.measure(_made(folder, "overload"), OVERLOAD_S * share)
    took_s = time.monotonic() - began_s
    return Scale(machine, took_s, has_priority, kept, steps, throughputs, overloaded)


def _made(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def _say(what: str) -> None:
    print(f"benchmark: {what}", file=sys.stderr, flush=True)
