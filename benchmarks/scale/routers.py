"""One router replica and two before the same echoes: requests and tokens per second, and the CPU
time of each process for them, which `benchmarks.capacity` goes by."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import cpu_use
from benchmarks.capacity import STREAMED, WHOLE
from benchmarks.scale import arrivals, echoes
from benchmarks.stack import Stack, running

NUM_TOKENS = 64
CONCURRENCY = 32
WORDS = " ".join(f"w{number}" for number in range(NUM_TOKENS))


@dataclass(frozen=True, slots=True)
class Throughput:
    """A load through so many routers. `cpu_s` is by the titles of processes."""

    num_routers: int
    load: str
    num_requests: int
    num_tokens: int  # of all answers
    num_failures: int
    elapsed_s: float
    cpu_s: dict[str, float]
    others_share: float  # of a core, used by what is neither the stack nor the client


def measure(folder: Path, share: float) -> list[Throughput]:
    """Raises: RuntimeError or TimeoutError for a stack that does not start."""
    found: list[Throughput] = []
    for num_routers in (1, 2):
        place = folder / str(num_routers)
        place.mkdir()
        stack = echoes.stack(place, num_routers, echo=echoes.RUNNING)
        with running([stack]):
            found += _loads(stack, num_routers, share)
    return found


def _loads(stack: Stack, num_routers: int, share: float) -> Iterator[Throughput]:
    for load, stream, most in ((WHOLE, False, 4000), (STREAMED, True, 1000)):
        num_requests = max(2 * CONCURRENCY, round(most * share))
        bodies = [_body(stream)]
        asyncio.run(arrivals.in_turn(stack.url, bodies, num_requests // 4, CONCURRENCY))
        before = cpu_use.snapshot([stack])
        elapsed_s, samples = asyncio.run(
            arrivals.in_turn(stack.url, bodies, num_requests, CONCURRENCY)
        )
        used = cpu_use.between(before, cpu_use.snapshot([stack]))
        yield Throughput(
            num_routers=num_routers,
            load=load,
            num_requests=num_requests,
            num_tokens=num_requests * (NUM_TOKENS if stream else 1),
            num_failures=sum(not (s.accepted and s.whole) for s in samples),
            elapsed_s=elapsed_s,
            cpu_s=used.stacks_s[stack.name],
            others_share=used.others_s / used.elapsed_s,
        )


def _body(stream: bool) -> dict[str, Any]:
    content = WORDS if stream else "one"
    return {"model": "echo", "stream": stream, "messages": [{"role": "user", "content": content}]}
