"""How much of a time the streamer was reading: in the rest the disk was idle."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any


class Watch:
    """Adds up the seconds in which one or more reads were under way."""

    def __init__(self) -> None:
        self.busy_s = 0.0
        self._lock = Lock()
        self._num_running = 0
        self._since = 0.0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A read, in any thread."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            now = time.perf_counter()
            if self._num_running:
                self.busy_s += now - self._since
            self._num_running += change
            self._since = now


@contextmanager
def busy_share(model: Any) -> Iterator[dict[str, float | None]]:
    """Yields what will have the share of the block's time, `busy_share`, when the block has ended;
    None for a model without a reader."""
    told: dict[str, float | None] = {"busy_share": None}
    if not hasattr(model, "streamer"):
        yield told
        return
    reader, watch = model.streamer.reader, Watch()
    fill = reader._fill

    def watched(*args: Any) -> None:
        with watch.reading():
            fill(*args)

    reader._fill = watched
    began = time.perf_counter()
    try:
        yield told
        told["busy_share"] = watch.busy_s / (time.perf_counter() - began)
    finally:
        del reader._fill
