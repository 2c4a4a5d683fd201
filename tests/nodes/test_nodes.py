"""Nodes that come, go and die under load: one head, three workers, real raylets."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

import pytest
import ray

from tests.change.traffic import Load, traffic
from tests.integration.conftest import echo_application
from tests.integration.instance import shipped_config
from tests.nodes.nodes import Nodes, nodes

SPREAD = {"num_replicas": 2, "max_replicas_per_node": 1}
LOAD = Load(["twice", "once"], rate_per_s=10, one_long_in=10)


def applications() -> list[dict[str, Any]]:
    """Two routers, a model of two replicas, each on a node of its own, and a model of one."""
    router = shipped_config()["applications"][0]
    settings = {"hold_s": 100, "max_held_requests": 4000}
    router["deployments"] = [{"name": "Router", "user_config": settings, **SPREAD}]
    twice, once = (echo_application(name, max_ongoing_requests=4000) for name in LOAD.models)
    twice["deployments"] = [{"name": "echo", **SPREAD}]
    return [router, twice, once]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(3, applications()) as running:
        until(lambda: running.ready() and running.settled("router", 2), 180)
        until(lambda: running.settled("twice", 2), 60)
        yield running


def until(condition: Callable[[], Any], limit_s: float) -> None:
    pause = Event()
    for _ in range(int(limit_s / 0.2)):
        if condition():
            return
        pause.wait(0.2)
    raise AssertionError("not in time")


class Told:
    """What /ready says all the while, each change of it once."""

    def __init__(self, cluster: Nodes) -> None:
        self.said: list[bool] = []
        self._cluster = cluster
        self._stop = Event()
        self._thread = Thread(target=self._watch)

    def __enter__(self) -> "Told":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            ready = self._cluster.ready()
            if self.said[-1:] != [ready]:
                self.said.append(ready)


def test_a_node_is_killed(cluster: Nodes) -> None:
    """The node with a model's only replica, and what else it has, dies without a word: of all
    answers only streams that had begun are lost, and none of those looks whole; what was lost
    comes back elsewhere, and /ready is down just while the model is."""
    (node_id,) = cluster.replicas("once").values()
    with traffic(cluster.url, LOAD) as seen, Told(cluster) as ready:
        until(lambda: seen.count("good") > 20, 60)
        num_open = seen.num_open
        cluster.kill(node_id)
        until(lambda: ready.said == [True, False, True], 120)
        assert node_id not in cluster.replicas("once").values()
        until(lambda: cluster.settled("router", 2) and cluster.settled("twice", 2), 120)
        good = seen.count("good")
        until(lambda: seen.count("good") > good + 20, 60)
    lost = [outcome for outcome in seen.outcomes if outcome.kind != "good"]
    assert [o for o in lost if o.kind not in {"broken", "cut"} or not o.asked.stream] == []
    assert len(lost) <= num_open
    assert ready.said == [True, False, True]


def test_a_node_comes_and_another_is_drained(cluster: Nodes) -> None:
    """One is added, and the one with the model's only replica is emptied, and then ended."""
    cluster.add()
    (node_id,) = cluster.replicas("once").values()
    with traffic(cluster.url, LOAD) as seen:
        address = ray.get_runtime_context().gcs_address
        command = [sys.executable, "-m", "serve_app", "drain", "--limit-s", "120", "--port", "1"]
        drained = subprocess.run(
            [*command, "--node-id", node_id],
            env={**os.environ, "RAY_ADDRESS": address},
            check=False,
            timeout=150,
        )
        assert drained.returncode == 0
        cluster.kill(node_id)
        until(lambda: cluster.settled("router", 2) and cluster.settled("twice", 2), 120)
        good = seen.count("good")
        until(lambda: seen.count("good") > good + 20, 60)
    assert seen.bad == []
    assert node_id not in cluster.replicas("once").values()
