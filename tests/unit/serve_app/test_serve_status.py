"""The cluster's state, read from Serve's controller: what is asked for, and when."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError
from ray.serve.schema import (
    ApplicationStatus,
    DeploymentDetails,
    DeploymentStatus,
    ReplicaState,
)
from ray.serve.schema import ServeStatus as PublicStatus

from serve_app import serve_status
from serve_app.application_status import state_from_replicas
from serve_app.serve_cluster import ServeCluster, num_running, room
from serve_app.serve_status import ServeStatus, Status
from tests.unit.serve_app.scripted_controller import RUNNING, ScriptedController


def test_what_has_not_changed_is_not_asked_for_again() -> None:
    """Of 200 applications the details are read once; then of the one that has changed, and all
    the others are the same objects."""
    controller = ScriptedController(**{f"m{i}": RUNNING for i in range(200)})
    status = ServeStatus(controller)
    first = status.read()
    assert len(controller.asked[0]) == 200
    assert status.read() is first
    controller.version["m7"] = 2.0
    changed = status.read()
    assert [a.name for a, b in zip(first, changed, strict=True) if a is not b] == ["m7"]
    assert status.read() is changed
    assert controller.asked[1:] == [[], ["m7"], []]


def test_a_busy_controller_is_not_asked_for_the_same_again() -> None:
    """What a controller has told before it became too busy is kept: the next look asks on from
    there, so that a look at many new applications ends however slow the controller is. Where all
    are known what it told last is good until it tells more, and all have their turn."""

    class Busy(ScriptedController):
        def details(
            self, deployments: Sequence[tuple[str, str]]
        ) -> Sequence[DeploymentDetails | None]:
            if len(self.asked[-1]) >= 32:
                raise GetTimeoutError
            return super().details(deployments)

    controller = Busy(**{f"m{i}": RUNNING for i in range(80)})
    status = ServeStatus(controller)
    for _ in range(2):
        with pytest.raises(GetTimeoutError):
            status.read()
    assert len(status.read()) == 80
    assert [len(asked) for asked in controller.asked] == [32, 32, 16]
    assert len({name for asked in controller.asked for name in asked}) == 80
    controller.healthy = dict.fromkeys(controller.replicas, "UPDATING")
    for _ in range(3):
        with suppress(GetTimeoutError):
            status.read()
    controller.replicas = {name: ["RUNNING", "RUNNING"] for name in controller.replicas}
    assert [sum(s.takes == 16 for s in status.read()) for _ in range(3)] == [32, 64, 80]


def test_what_is_on_the_move_is_looked_at_each_time() -> None:
    """While Serve starts or stops replicas their states are read at each look, since the short
    status tells nothing of them."""
    controller = ScriptedController(still=RUNNING, moving=["STARTING"])
    controller.healthy["moving"] = "UPSCALING"
    status = ServeStatus(controller)
    status.read()
    controller.replicas["moving"] = RUNNING
    (_, moving) = status.read()
    assert moving.overview.deployments["echo"].replica_states == {ReplicaState.RUNNING: 1}
    controller.healthy["moving"] = "HEALTHY"
    status.read()
    status.read()
    assert controller.asked == [["still", "moving"], ["moving"], ["moving"], []]


def test_a_replica_that_moves_is_seen_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no short status tells is seen when what is kept has become too old."""
    monkeypatch.setattr(serve_status, "KEPT_S", 0.0)
    controller = ScriptedController(demo=RUNNING)
    status = ServeStatus(controller)
    status.read()
    controller.replicas["demo"] = ["RUNNING", "RUNNING"]
    assert status.read()[0].takes == 16


def test_come_and_gone() -> None:
    """Applications that come and go are seen at the next look; nothing is kept of those that
    have gone, and one that goes while it is asked for is there without a deployment."""
    controller = ScriptedController(a=RUNNING)
    status = ServeStatus(controller)
    status.read()
    controller.replicas["b"], controller.version["b"], controller.healthy["b"] = [], 1.0, "HEALTHY"
    assert [s.name for s in status.read()] == ["a", "b"]
    del controller.replicas["a"]
    assert [s.name for s in status.read()] == ["b"]
    assert len(status._kept) == 1
    (read,) = status._read([controller._short("a")])
    assert (read.overview.deployments, read.takes) == ({}, None)


def test_the_same_words_as_serve_s() -> None:
    """What is read is in Serve's own words, as `serve.status()` has it."""
    (status,) = ServeStatus(ScriptedController(demo=["RUNNING", "STOPPING"])).read()
    assert status.overview.status == ApplicationStatus.RUNNING
    assert status.overview.last_deployed_time_s == 1.0
    deployment = status.overview.deployments["echo"]
    assert deployment.status == DeploymentStatus.HEALTHY
    assert deployment.replica_states == {ReplicaState.RUNNING: 1, ReplicaState.STOPPING: 1}
    assert status.takes == 8


def test_another_ray_is_asked_as_everybody_asks() -> None:
    """A controller that does not know the short way is read by `serve.status()`."""

    class Other(ScriptedController):
        def statuses(self) -> Sequence[bytes]:
            raise AttributeError

    overview = ServeStatus(ScriptedController(demo=RUNNING)).read()[0].overview
    told = PublicStatus(applications={"demo": overview})
    assert ServeStatus(Other(), lambda: told).read() == [Status("demo", overview)]


def test_each_router_has_its_part() -> None:
    """A model's room is what its running replicas take, divided among the routers that run, and
    follows both; the router itself is no model."""
    controller = ScriptedController(router=RUNNING, demo=RUNNING, cold=[])
    cluster = ServeCluster("router")
    cluster._status = ServeStatus(controller)
    assert [(a.name, a.room) for a in cluster._applications()] == [("demo", 8), ("cold", 0)]
    assert cluster._applications() is cluster._applications()
    controller.replicas["router"] = ["RUNNING", "RUNNING", "RUNNING"]
    controller.version["router"] = 2.0
    assert [a.room for a in cluster._applications()] == [3, 0]
    controller.replicas["demo"] = ["RUNNING", "RUNNING"]
    controller.version["demo"] = 2.0
    assert [a.room for a in cluster._applications()] == [6, 0]


async def test_handles_of_what_is_gone_are_ended() -> None:
    """A handle polls the controller as long as it lives: that of an application that is gone is
    ended, so that models which come and go do not add up in a router."""
    ended: list[str] = []

    class Handle:
        def __init__(self, name: str) -> None:
            self.name = name

        async def shutdown_async(self) -> None:
            ended.append(self.name)

    cluster = ServeCluster("router")
    handles: Any = {(name, "echo"): Handle(name) for name in ("stays", "goes")}
    cluster._handles = handles
    await cluster._let_go({"stays", "new"})
    assert (ended, list(handles)) == (["goes"], [("stays", "echo")])


def test_the_old_version_serves_while_the_new_one_is_built() -> None:
    """Serve lists no deployments of an application that is being built: those that there are tell
    of its replicas, asked for once at a look, and of no others."""
    controller = ScriptedController(**{f"m{i}": RUNNING for i in range(20)}, cold=[])
    cluster = ServeCluster("router")
    cluster._status = ServeStatus(controller)
    before = cluster._applications()
    assert (controller.num_counts, before[0].settled) == (0, True)
    controller.built = set(controller.replicas)
    found = {a.name: a for a in cluster._applications()}
    assert controller.num_counts == 1
    assert [(a.state, a.backend, a.room, a.settled) for a in found.values()] == [
        ("running", "echo", 8, False)
    ] * 20 + [("warming", "echo", 0, False)]
    controller.replicas["m7"] = []
    assert {a.name: a.state for a in cluster._applications()}["m7"] == "warming"


def test_a_controller_that_does_not_tell_of_old_replicas() -> None:
    """Another Ray's: an application that is being built is only said to be so."""

    class Other(ScriptedController):
        def running(self) -> dict[tuple[str, str], list[int]]:
            raise AttributeError

    controller = Other(demo=RUNNING)
    controller.built = {"demo"}
    (status,) = ServeStatus(controller).read()
    assert (status.overview.status, status.overview.deployments) == ("DEPLOYING", {})


def test_room() -> None:
    """Rounded up: many routers before a small model have one place each."""
    assert [room(8, routers) for routers in (1, 2, 3, 16)] == [8, 4, 3, 1]
    assert room(None, 2) is None
    assert num_running(None) == 1


def test_what_is_doubted_is_asked_for_at_each_look() -> None:
    """A replica that has died is found missing, though Serve's short status says nothing of it."""
    controller = ScriptedController(one=RUNNING, two=RUNNING)
    status = ServeStatus(controller)
    status.read()
    controller.replicas["one"] = ["STARTING"]
    status.read()
    assert controller.asked[1] == []
    status.doubt("one")
    (one, _) = status.read()
    assert controller.asked[2] == ["one"]
    (details,) = one.overview.deployments.values()
    assert details.replica_states == {"STARTING": 1}


def test_a_replica_that_moves_still_answers() -> None:
    """On a node that is drained it runs until another does."""
    (status,) = ServeStatus(ScriptedController(one=["PENDING_MIGRATION", "STARTING"])).read()
    replicas = {"PENDING_MIGRATION": 1, "STARTING": 1}
    assert state_from_replicas(ApplicationStatus.RUNNING, replicas) == "running"
    assert status.takes == 8
