"""An open loop: requests arrive when they arrive, however long the earlier ones take.

A closed loop asks less of a server that is slow, and so hides how long others would have waited
("coordinated omission"). Here each request has a time at which it is due, and its latency counts
from then, not from when the client came to send it.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Outcome = TypeVar("Outcome")


def poisson_arrivals_s(rate_per_s: float, lasts_s: float, seed: int) -> list[float]:
    """When requests are due, in seconds from the start: a Poisson process of this rate for so long.
    The same seed gives the same times, so that every server gets the same requests."""
    order = random.Random(seed)
    arrivals_s: list[float] = []
    at_s = order.expovariate(rate_per_s)
    while at_s < lasts_s:
        arrivals_s.append(at_s)
        at_s += order.expovariate(rate_per_s)
    return arrivals_s


async def open_loop(
    ask: Callable[[int, float], Awaitable[Outcome]], arrivals_s: Sequence[float]
) -> tuple[float, list[Outcome]]:
    """Calls `ask` with 0, 1, ... and the `time.perf_counter()` at which it was due, never before
    that, and waits for no answer before the next. All are asked.

    Returns: seconds from the start to the last answer; the outcomes, in the order of arrival.
    """
    began_s = time.perf_counter()
    asked: list[asyncio.Task[Outcome]] = []
    async with asyncio.TaskGroup() as group:
        for number, arrival_s in enumerate(arrivals_s):
            due_s = began_s + arrival_s
            if (wait_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            asked.append(group.create_task(_ask(ask, number, due_s)))
    return time.perf_counter() - began_s, [task.result() for task in asked]


async def _ask(
    ask: Callable[[int, float], Awaitable[Outcome]], number: int, due_s: float
) -> Outcome:
    return await ask(number, due_s)
