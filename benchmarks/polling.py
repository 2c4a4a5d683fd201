"""Waiting for what no event tells: bounded, and failing loudly."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(condition: Callable[[], Found | None], limit_s: float, pause_s: float) -> Found:
    """What `condition` returns, as soon as that is true. Raises: TimeoutError after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(pause_s)
    raise TimeoutError
