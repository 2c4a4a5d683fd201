"""A closed loop: so many clients, each asking again as soon as it has been answered."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

LIMIT_S = 60.0

Outcome = TypeVar("Outcome")


async def closed_loop(
    ask: Callable[[int], Awaitable[Outcome]],
    num_requests: int | None,
    concurrency: int,
    limit_s: float = LIMIT_S,
) -> tuple[float, list[Outcome]]:
    """Calls `ask` with 0, 1, ... `num_requests` - 1, or without an end if that is None. After
    `limit_s` nothing more is asked; what has been asked is waited for.

    Returns: seconds from the first question to the last answer; the outcomes, as they came.
    """
    outcomes: list[Outcome] = []
    numbers = iter(count() if num_requests is None else range(num_requests))
    began_s = time.perf_counter()

    async def client() -> None:
        for number in numbers:
            outcomes.append(await ask(number))
            if time.perf_counter() - began_s > limit_s:
                return

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return time.perf_counter() - began_s, outcomes
