"""A closed loop: so many clients, each asking again as soon as it has been answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

LIMIT_S = 60.0

Outcome = TypeVar("Outcome")


async def closed_loop(
    ask: Callable[[int], Awaitable[Outcome]], num_requests: int, concurrency: int
) -> tuple[float, list[Outcome]]:
    """Calls `ask` with 0, 1, ... `num_requests` - 1. After LIMIT_S nothing more is asked.

    Returns: seconds from the first question to the last answer; the outcomes, as they came.
    """
    outcomes: list[Outcome] = []
    numbers = iter(range(num_requests))
    began_s = time.perf_counter()

    async def client() -> None:
        for number in numbers:
            outcomes.append(await ask(number))
            if time.perf_counter() - began_s > LIMIT_S:
                return

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return time.perf_counter() - began_s, outcomes
