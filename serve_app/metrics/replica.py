"""What a model's replica tells of itself: how long its start took, what its engine has in hand."""

import time
from collections.abc import Callable

import psutil

from deployments.load import Load
from serve_app.metrics import catalog
from serve_app.metrics.books import Books


class ReplicaMetrics:
    """The books of one replica."""

    def __init__(self, application: str, backend: str, load: Callable[[], Load]) -> None:
        self._labels = (application, backend)
        self.books = Books(catalog.REPLICA)
        self.books.read(catalog.ENGINE_RUNNING, lambda: {self._labels: load().num_running})
        self.books.read(catalog.ENGINE_WAITING, lambda: {self._labels: load().num_waiting})
        self.books.read(catalog.KV_CACHE_USE, lambda: {self._labels: load().kv_use})

    def started(self) -> None:
        """The replica can answer. Its process was made for it."""
        took_s = time.time() - psutil.Process().create_time()
        self.books.observations(catalog.REPLICA_START, self._labels).add(took_s)
