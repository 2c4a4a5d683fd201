"""How far models are that are still being loaded: told by their replicas, read by the routers.

A replica cannot be called before its start is over, so it tells a small actor, which whoever comes
first creates and which goes when that one is done; the others then make another. No request and no
start depends on it: where it is not there, nothing is known.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from deployments.progress import Progress, Report

logger = logging.getLogger("roundhouse")

NAME = "roundhouse-loading"
NAMESPACE = "roundhouse"
TELL_PERIOD_S = 1.0  # a start that is over before is not told
ANSWER_S = 1.0
FORGET_S = 10.0


class Board:
    """The actor. What has not been told again for a while is forgotten: its replica died."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[tuple[str, str], tuple[float, Progress]] = {}

    def tell(self, application: str, replica: str, progress: Progress | None) -> None:
        """Notes how far a replica is; None when it has ended its start."""
        self._told.pop((application, replica), None)
        if progress is not None:
            self._told[application, replica] = (self._clock(), progress)

    def read(self) -> dict[str, list[Progress]]:
        """What is known of the replicas that load, by application."""
        oldest = self._clock() - FORGET_S
        self._told = {key: told for key, told in self._told.items() if told[0] >= oldest}
        found: dict[str, list[Progress]] = {}
        for (application, _), (_, progress) in sorted(self._told.items()):
            found.setdefault(application, []).append(progress)
        return found


async def read() -> Mapping[str, Sequence[Progress]]:
    """How far the replicas are that load now, by application; nothing where nobody tells."""
    try:
        async with asyncio.timeout(ANSWER_S):
            board = await asyncio.to_thread(ray.get_actor, NAME, NAMESPACE)
            found: dict[str, list[Progress]] = await board.read.remote()
    except (ValueError, RayError, TimeoutError):  # not there, gone, or busy
        return {}
    return found


@asynccontextmanager
async def telling(application: str, replica: str) -> AsyncIterator[Report]:
    """Passes on what is reported inside the block, about once a second."""
    latest: list[Progress] = []
    task = asyncio.create_task(_tell(application, replica, latest))
    try:
        yield lambda progress: latest.__setitem__(slice(None), [progress])
    finally:
        task.cancel()


async def _tell(application: str, replica: str, latest: list[Progress]) -> None:
    board: Any = None  # the actor lives as long as who created it has this
    try:
        while True:
            await asyncio.sleep(TELL_PERIOD_S)
            try:
                board = board or await asyncio.to_thread(_board)
                await board.tell.remote(application, replica, *latest[:1])
            except (ValueError, RayError) as exc:
                logger.debug("the loading of %s was not told: %s", application, type(exc).__name__)
                board = None
    finally:
        if board is not None:
            board.tell.remote(application, replica, None)


def _board() -> Any:
    actor = ray.remote(num_cpus=0)(Board)
    return actor.options(name=NAME, namespace=NAMESPACE, get_if_exists=True).remote()
