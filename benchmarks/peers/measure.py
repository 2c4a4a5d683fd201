"""The run itself: path by path, repetition by repetition, load by load, contender by contender."""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.huggingface.work import endless_checkpoint
from benchmarks.load import Load
from benchmarks.machine import Machine, this_machine
from benchmarks.peers import contenders, loads
from benchmarks.peers.arena import Arena, arena
from benchmarks.peers.paths import PATHS
from benchmarks.priority import client_first
from benchmarks.summary import Record, failures_of

STOP_S = 15.0  # what it takes to end the stacks of a path
WEIGHTS = {"engine": 3, "api": 2, "huggingface": 2}  # of the time: how long the paths take


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. No repetition but a path's first begins if it would end after its share
    of `limit_s`. `only` are paths; `words` narrow the loads down to those whose names have one."""

    num_repetitions: int
    share: float
    limit_s: float
    only: Sequence[str] = PATHS
    words: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PathFound:
    """What was found on one path. `failed` are those who took no part, with the reason."""

    path: str
    contenders: list[str]
    failed: dict[str, str]
    versions: dict[str, str]
    num_repetitions: int
    records: list[Record]
    peak_bytes: dict[str, int]  # of all processes of a stack
    shared_bytes: dict[str, int]  # at the end, shared pages counted once

    @property
    def failures(self) -> Counter[tuple[str, str, str]]:
        """Requests that failed, by contender, load and reason."""
        return failures_of(self.records)


@dataclass(frozen=True, slots=True)
class Found:
    """All that one run found."""

    machine: Machine
    took_s: float
    has_priority: bool  # the client, over all other processes
    paths: list[PathFound]


def measure(plan: Plan) -> Found:
    """Starts what takes part, path by path, and ends it again. Who does not start is told of."""
    began_s, machine = time.monotonic(), this_machine()
    paths: list[PathFound] = []
    with tempfile.TemporaryDirectory(prefix="roundhouse-benchmark-") as name:
        for path in plan.only:
            folder = Path(name) / path
            folder.mkdir()
            until_s = began_s + plan.limit_s * share_until(path, plan.only)
            say(f"{path} path: starting")
            with ARENAS[path](folder) as stage:
                has_priority = client_first()
                paths.append(_path(path, stage, plan, until_s))
    return Found(machine, time.monotonic() - began_s, has_priority, paths)


def share_until(path: str, only: Sequence[str]) -> float:
    """How much of the time has gone when a path should be through; what one leaves the next has."""
    weights = [WEIGHTS[one] for one in only]
    return sum(weights[: only.index(path) + 1]) / sum(weights)


def _engine(folder: Path) -> AbstractContextManager[Arena]:
    return arena(contenders.engine_contenders(), folder)


def _api(folder: Path) -> AbstractContextManager[Arena]:
    upstream = contenders.upstream_stack(folder)
    return arena(contenders.api_contenders(upstream), folder, [upstream])


def _huggingface(folder: Path) -> AbstractContextManager[Arena]:
    checkpoint = endless_checkpoint(folder / "demo")
    return arena(contenders.huggingface_contenders(checkpoint), folder)


ARENAS: dict[str, Callable[[Path], AbstractContextManager[Arena]]] = {
    "engine": _engine,
    "api": _api,
    "huggingface": _huggingface,
}
LOADS = {
    "engine": loads.engine_loads,
    "api": loads.api_loads,
    "huggingface": loads.huggingface_loads,
}


def _path(path: str, stage: Arena, plan: Plan, until_s: float) -> PathFound:
    asked = [one for one in LOADS[path](plan.share) if wanted(one.name, plan.words)]
    records = list(_records(path, stage, asked, plan, until_s))
    environments = {one.environment.name: one.environment for one in stage.ready if one.environment}
    versions = {k: v for one in environments.values() for k, v in one.versions().items()}
    return PathFound(
        path=path,
        contenders=[one.name for one in stage.contenders],
        failed=stage.failed,
        versions=versions,
        num_repetitions=1 + max((record.repetition for record in records), default=-1),
        records=records,
        peak_bytes=stage.peak_bytes(),
        shared_bytes=stage.shared_bytes(),
    )


def wanted(name: str, words: Sequence[str]) -> bool:
    """Whether a load is meant by one of the words; all are if there are none."""
    return not words or any(word.lower() in name.lower() for word in words)


def _records(
    path: str, stage: Arena, asked: Sequence[Load], plan: Plan, until_s: float
) -> Iterator[Record]:
    took_s = 0.0
    for repetition in range(plan.num_repetitions):
        began_s = time.monotonic()
        if repetition and began_s + took_s + STOP_S > until_s:
            say(f"{path} path: no time for more than {repetition} repetitions")
            return
        for load in asked:
            said = f"{path} path, repetition {repetition + 1} of {plan.num_repetitions}"
            for record in _in_turn(stage, load, repetition):
                say(f"{said}: {load.name}: {record.stack}: {_said(record)}")
                yield record
        took_s = time.monotonic() - began_s


def _in_turn(stage: Arena, load: Load, repetition: int) -> Iterator[Record]:
    for contender in stage.ready:
        try:
            yield stage.record(contender, load, repetition)
        except RuntimeError as error:
            say(f"{contender.name} takes no part any more: {error}")
            stage.failed[contender.name] = str(error)


def _said(record: Record) -> str:
    num_failed = sum(record.failures.values())
    rate = record.figures.get("requests_per_s", 0.0)
    return f"{rate:.1f} requests/s" + (f", {num_failed} FAILED" if num_failed else "")


def say(what: str) -> None:
    print(f"benchmark: {what}", file=sys.stderr, flush=True)
