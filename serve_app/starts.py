"""How long models take to start, learnt from the starts that the directory has seen.

Each router learns for itself. Says nothing of a model that it has never seen starting, unless the
model's replica tells how far it is.
"""

import time
from collections import deque
from statistics import median

from deployments.progress import Progress
from serve_app.directory import Application

NUM_STARTS_KEPT = 5
# A start that takes longer than the last ones did is thought to take this share of it once more.
OVERDUE_SHARE = 0.25


class Starts:
    """The last starts of each application. Serves as a watcher of the directory."""

    def __init__(self) -> None:
        self._took_s: dict[str, deque[float]] = {}

    def observe(self, before: Application | None, now: Application) -> None:
        """Books a start when it is over."""
        if before is not None and before.state == "warming" and now.state == "running":
            took_s = self._took_s.setdefault(now.name, deque(maxlen=NUM_STARTS_KEPT))
            took_s.append(now.since_s - before.since_s)

    def remaining_s(self, application: Application, loading: Progress | None) -> float | None:
        """When an application that does not run is thought to run, had it been asked to by now;
        None where nothing is known. The median of its last starts is better than how much of the
        weights has been read: what comes after them is not in their number."""
        elapsed_s = time.time() - application.since_s if application.state == "warming" else 0.0
        total_s = self._total_s(application.name, elapsed_s, loading)
        if total_s is None or total_s > elapsed_s:
            return None if total_s is None else total_s - elapsed_s
        return elapsed_s * OVERDUE_SHARE

    def _total_s(self, name: str, elapsed_s: float, loading: Progress | None) -> float | None:
        if name in self._took_s:
            return median(self._took_s[name])
        percent = loading.percent if loading else None
        return elapsed_s * 100 / percent if percent else None
