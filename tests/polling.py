"""Waiting in a test for what no event tells: bounded, and failing loudly.

The bound is for what never comes, not for what comes late: a machine may stand still for seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable

PATIENCE_S = 60


async def until(
    condition: Callable[[], bool | Awaitable[bool]], limit_s: float = PATIENCE_S
) -> None:
    """Returns when the condition holds. Raises: TimeoutError after `limit_s` seconds."""
    async with asyncio.timeout(limit_s):
        while not await _holds(condition):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


async def _holds(condition: Callable[[], bool | Awaitable[bool]]) -> bool:
    found = condition()
    return found if isinstance(found, bool) else await found
