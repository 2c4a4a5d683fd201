"""A model at what it takes, and at four times that: who is answered, how fast, and who is told no.

The model is an echo that streams at a set pace and takes so many requests at a time, so that its
capacity is known. Arrivals do not wait for answers.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.polling import until
from benchmarks.scale import arrivals, echoes
from benchmarks.scale.arrivals import Sample
from benchmarks.stack import Stack, running
from benchmarks.summary import percentile

ROOM = 16
NUM_WORDS, PAUSE_S = 20, 0.05
CAPACITY_PER_S = ROOM / (NUM_WORDS * PAUSE_S)
OVERLOAD = 4
AT_CAPACITY = 0.9  # where hardly anything is refused: arrivals are even, answers are not quite
QUIET_LIMIT_S = 30
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Phase:
    """What clients saw at one rate of arrivals, and the router's process after it."""

    rate_per_s: float
    num_requests: int
    num_accepted: int
    num_refused: int
    num_others: int  # neither: failures
    num_without_retry_after: int
    first_token_p50_ms: float
    first_token_p99_ms: float
    refused_p50_ms: float
    refused_p99_ms: float
    peak_rss_mb: float


@dataclass(frozen=True, slots=True)
class Resources:
    """What the router holds."""

    rss_mb: float
    num_sockets: int
    num_ongoing: int


@dataclass(frozen=True, slots=True)
class Overload:
    """The phases in their order, and what the router held before, between and after them."""

    at_capacity: Phase
    overloaded: Phase
    again: Phase
    before: Resources
    after: Resources


def measure(folder: Path, lasts_s: float) -> Overload:
    """Raises: RuntimeError or TimeoutError for a stack that does not start, or does not calm."""
    args = {**echoes.RUNNING, "max_ongoing_requests": ROOM}
    stack = echoes.stack(folder, 1, narrow=args)
    with running([stack]):
        _phase(stack, CAPACITY_PER_S, 2.0)  # opens connections, and pays what is paid once
        _phase(stack, OVERLOAD * CAPACITY_PER_S, 2.0)
        _calm(stack)
        before = resources(stack)
        at_capacity = _phase(stack, AT_CAPACITY * CAPACITY_PER_S, lasts_s)
        overloaded = _phase(stack, OVERLOAD * CAPACITY_PER_S, lasts_s)
        again = _phase(stack, AT_CAPACITY * CAPACITY_PER_S, lasts_s / 2)
        _calm(stack)
        with suppress(TimeoutError):  # HAProxy closes what it does not need a few at a time
            until(lambda: _num_sockets(stack) <= before.num_sockets, QUIET_LIMIT_S, 0.5)
        return Overload(at_capacity, overloaded, again, before, resources(stack))


def resources(stack: Stack) -> Resources:
    process = echoes.router(stack)
    return Resources(
        rss_mb=process.memory_info().rss / MEGABYTE,
        num_sockets=_num_sockets(stack),
        num_ongoing=echoes.ongoing(stack, "narrow"),
    )


def _num_sockets(stack: Stack) -> int:
    return len(echoes.router(stack).net_connections("tcp"))


def _calm(stack: Stack) -> None:
    """Nothing is under way any more, and idle connections have had their time to close."""
    until(lambda: echoes.ongoing(stack, "narrow") == 0, QUIET_LIMIT_S, 0.2)
    time.sleep(2)


def _phase(stack: Stack, rate_per_s: float, lasts_s: float) -> Phase:
    process, peak = echoes.router(stack), [0.0]
    samples = asyncio.run(_watched(stack.url, rate_per_s, lasts_s, process, peak))
    return phase_of(rate_per_s, samples, peak[0])


async def _watched(
    url: str, rate_per_s: float, lasts_s: float, process: psutil.Process, peak: list[float]
) -> list[Sample]:
    async def watch() -> None:
        while True:
            peak[0] = max(peak[0], process.memory_info().rss / MEGABYTE)
            await asyncio.sleep(0.2)

    watcher = asyncio.create_task(watch())
    try:
        return await arrivals.at_rate(url, body(), rate_per_s, lasts_s)
    finally:
        watcher.cancel()


def body() -> dict[str, Any]:
    """A stream of so many words at the set pace."""
    words = " ".join(f"w{number}" for number in range(NUM_WORDS))
    content = f"[[sleep={PAUSE_S}]] {words}"
    return {"model": "narrow", "stream": True, "messages": [{"role": "user", "content": content}]}


def phase_of(rate_per_s: float, samples: Sequence[Sample], peak_rss_mb: float) -> Phase:
    """The figures of one phase; 0 where there is nothing to take them of."""
    first_s = [s.first_token_s for s in samples if s.accepted and s.first_token_s is not None]
    refused = [s for s in samples if s.refused]
    refused_s = [s.answer_s for s in refused]
    num_accepted = sum(s.accepted and s.whole for s in samples)
    return Phase(
        rate_per_s=rate_per_s,
        num_requests=len(samples),
        num_accepted=num_accepted,
        num_refused=len(refused),
        num_others=len(samples) - num_accepted - len(refused),
        num_without_retry_after=sum(not s.retry_after for s in refused),
        first_token_p50_ms=1000 * percentile(first_s, 50) if first_s else 0.0,
        first_token_p99_ms=1000 * percentile(first_s, 99) if first_s else 0.0,
        refused_p50_ms=1000 * percentile(refused_s, 50) if refused_s else 0.0,
        refused_p99_ms=1000 * percentile(refused_s, 99) if refused_s else 0.0,
        peak_rss_mb=peak_rss_mb,
    )
