"""Nodes that come, go and die under load: one head, three workers, real raylets."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

import httpx2
import pytest
import ray

from tests.change.traffic import Load, traffic
from tests.integration.conftest import echo_application
from tests.integration.instance import shipped_config
from tests.nodes.nodes import Nodes, nodes
from tests.plain_http import CHAT, chat

SPREAD = {"num_replicas": 2, "max_replicas_per_node": 1}
LOAD = Load(["twice", "once"], rate_per_s=10, one_long_in=10)
LIMIT_S = 180  # for what comes in seconds where nothing else runs
MOST_LOOKS_BEHIND = 20  # of four a second: a router looks once a second, on a machine at its limit


def applications() -> list[dict[str, Any]]:
    """Two routers, a model of two replicas, each on a node of its own, and a model of one, whose
    start takes as long as several looks: that it is down is seen."""
    router = shipped_config()["applications"][0]
    settings = {"hold_s": 100, "max_held_requests": 4000}
    router["deployments"] = [{"name": "Router", "user_config": settings, **SPREAD}]
    twice, once = (echo_application(name, max_ongoing_requests=4000) for name in LOAD.models)
    twice["deployments"] = [{"name": "echo", **SPREAD}]
    once["args"]["start_delay_s"] = 5
    return [router, twice, once]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(3, applications()) as running:
        until(lambda: running.ready() and running.settled("router", 2))
        until(lambda: running.settled("twice", 2))
        yield running


def until(condition: Callable[[], Any]) -> None:
    pause = Event()
    for _ in range(int(LIMIT_S / 0.2)):
        if condition():
            return
        pause.wait(0.2)
    raise AssertionError("not in time")


class Told:
    """What /ready says all the while, beside whether every application has a replica that runs.

    There are two routers, and each looks once a second: for a moment they need not agree, nor
    either of them with Serve.
    """

    def __init__(self, cluster: Nodes) -> None:
        self.was_down = False
        self.longest_lie = 0
        self._lie = 0
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
        while not self._stop.wait(0.25):
            ready, true = self._cluster.ready(), self._cluster.serves_all()
            self.was_down |= not ready and not true
            self._lie = self._lie + 1 if ready != true else 0
            self.longest_lie = max(self.longest_lie, self._lie)


def start_drain(*arguments: str) -> "subprocess.Popen[str]":
    """`roundhouse drain`, on this machine."""
    env = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, "-m", "serve_app", "drain", "--port", "1", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True)


def told(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit status, and what it says went wrong."""
    _, errors = process.communicate(timeout=LIMIT_S)
    return process.returncode, errors


def test_a_node_is_not_guessed(cluster: Nodes) -> None:
    """Where several nodes have this machine's address, `roundhouse drain` empties none; nor where
    the one that is named is not there."""
    refusals = [
        told(process)
        for process in (start_drain("--limit-s", "1"), start_drain("--node-id", "no-such-node"))
    ]
    assert [status for status, _ in refusals] == [1, 1]
    assert "say --node-id" in refusals[0][1]
    assert "the cluster has no node no-such-node; there are" in refusals[1][1]


def test_a_node_is_killed(cluster: Nodes) -> None:
    """The node with a model's only replica, and what else it has, dies without a word: of all
    answers only streams that had begun are lost, and none of those looks whole; what was lost
    comes back elsewhere, and /ready is down just while the model is."""
    (node_id,) = cluster.replicas("once").values()
    with traffic(cluster.url, LOAD) as seen, Told(cluster) as ready:
        until(lambda: seen.count("good") > 20)
        num_open = seen.num_open
        cluster.kill(node_id)
        until(lambda: ready.was_down)
        until(cluster.serves_all)
        assert node_id not in cluster.replicas("once").values()
        until(lambda: cluster.settled("router", 2) and cluster.settled("twice", 2))
        good = seen.count("good")
        until(lambda: seen.count("good") > good + 20)
    lost = [outcome for outcome in seen.outcomes if outcome.kind != "good"]
    assert [o for o in lost if o.kind not in {"broken", "cut"} or not o.asked.stream] == []
    assert len(lost) <= num_open
    assert ready.longest_lie <= MOST_LOOKS_BEHIND
    assert cluster.ready()


def test_a_node_comes_and_another_is_drained(cluster: Nodes) -> None:
    """One is added, and the one with the model's only replica is emptied by `roundhouse drain`, and
    then ended: no answer is cut off, long streams included, and the model answers all the while.
    Ctrl-C and a limit end only the waiting, and say so; the same command waits for the rest."""
    cluster.add()
    (node_id,) = cluster.replicas("once").values()
    with traffic(cluster.url, LOAD) as seen, Told(cluster) as ready:
        # A stream that goes on keeps the node until after the interrupt.
        body = chat("begun [[wait]]", "once", stream=True)
        with httpx2.stream("POST", cluster.url + CHAT, json=body, timeout=LIMIT_S) as kept:
            next(kept.iter_raw())
            waiting = start_drain("--limit-s", "150", "--node-id", node_id)
            until(lambda: cluster.migrates("once"))
            waiting.send_signal(signal.SIGINT)
            status, said = told(waiting)
            assert (status, "goes on being emptied" in said) == (130, True)
        status, said = told(start_drain("--limit-s", "0", "--node-id", node_id))
        assert (status, "after 0 s there are still" in said) in {(1, True), (0, False)}
        assert told(start_drain("--limit-s", "150", "--node-id", node_id)) == (0, "")
        cluster.kill(node_id)
        until(lambda: cluster.settled("router", 2) and cluster.settled("twice", 2))
        good = seen.count("good")
        until(lambda: seen.count("good") > good + 20)
    assert seen.bad == []
    assert not ready.was_down
    assert ready.longest_lie <= MOST_LOOKS_BEHIND
    assert node_id not in cluster.replicas("once").values()
