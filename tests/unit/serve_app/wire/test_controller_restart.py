"""Serve's controller has come back: it finds its replicas, and has yet to hear from them."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from serve_app.directory import Application
from serve_app.serve_cluster import ServeCluster
from serve_app.serve_status import ServeStatus
from serve_app.wire.listener import Listener
from tests.polling import until
from tests.unit.serve_app.scripted_controller import RUNNING, ScriptedController
from tests.unit.serve_app.wire.conftest import MODEL, Replica

FOUND = ["RECOVERING"]

Make = Callable[..., "asyncio.Task[Replica]"]


class Watched:
    """A router's view of a controller; `look` is what its poll does."""

    def __init__(self, listener: Listener, **replicas: list[str]) -> None:
        self.controller = ScriptedController(router=RUNNING, **replicas)
        self._cluster = ServeCluster("router")
        self._cluster._listener = listener
        self._cluster._status = ServeStatus(self.controller)

    def look(self) -> Sequence[Application]:
        return self._cluster._applications()

    def come_back(self) -> None:
        """Another controller, which deploys all anew: every replica is one that it has found."""
        told = self.controller
        told.replicas = {name: FOUND * len(states) for name, states in told.replicas.items()}
        told.healthy = dict.fromkeys(told.replicas, "UPDATING")


def test_what_ran_runs_on(listener: Listener) -> None:
    """Nothing of an application that ran changes, its room included, until its replicas have been
    heard from, one before the other; of those that have not come back it is seen then."""
    watched = Watched(listener, demo=RUNNING * 2, other=RUNNING)
    before = watched.look()
    watched.come_back()
    assert [now is then for now, then in zip(watched.look(), before, strict=True)] == [True, True]
    assert [now is then for now, then in zip(watched.look(), before, strict=True)] == [True, True]
    watched.controller.replicas |= {"demo": ["RUNNING", "RECOVERING"], "other": ["STARTING"]}
    assert [(a.state, a.room) for a in watched.look()] == [("running", 16), ("warming", 0)]


def test_what_did_not_run_does_not(listener: Listener) -> None:
    """A replica that is found again may have been starting: an application that did not run, or
    that nothing is known of, does when its replica says so."""
    watched = Watched(listener, demo=["STARTING"])
    watched.look()
    watched.come_back()
    watched.controller.replicas["new"] = FOUND
    watched.controller.version["new"], watched.controller.healthy["new"] = 1.0, "UPDATING"
    assert [(a.name, a.state) for a in watched.look()] == [("demo", "warming"), ("new", "warming")]


def test_the_routers_share_as_before(listener: Listener) -> None:
    """Routers that are found again take requests all the while: a model's room is divided by as
    many."""
    watched = Watched(listener, demo=RUNNING * 2)
    watched.controller.replicas["router"] = RUNNING * 2
    assert [a.room for a in watched.look()] == [8]
    watched.come_back()
    watched.controller.replicas["demo"] = RUNNING * 4
    assert [a.room for a in watched.look()] == [16]


@pytest.mark.parametrize("router", [FOUND, []])
def test_what_is_being_built_runs_on(listener: Listener, router: list[str]) -> None:
    """Of an application that was being built a controller tells no replica until it has heard from
    it. As long as it has yet to hear from others, or from nobody, that one ran is known."""
    watched = Watched(listener, demo=RUNNING, cold=[])
    before = watched.look()
    watched.come_back()
    watched.controller.replicas["router"] = router
    watched.controller.built = {"demo", "cold"}
    (demo, cold) = watched.look()
    assert demo is before[0]
    assert cold.state == "warming"
    watched.controller.replicas |= {"router": RUNNING, "demo": []}
    assert [a.state for a in watched.look()] == ["warming", "warming"]


async def test_a_wire_tells_that_a_replica_runs(listener: Listener, replica: Make) -> None:
    """An application that is being built, and of which nothing is told, runs on while there is a
    wire to one of its replicas, and no longer."""
    watched = Watched(listener, **{MODEL: RUNNING, "other": RUNNING})
    made = await replica()
    before = watched.look()
    watched.controller.built = {MODEL, "other"}
    watched.controller.replicas |= {MODEL: [], "other": []}
    found = watched.look()
    assert [a.state for a in found] == ["running", "warming"]
    assert found[0] is before[0]
    made.die()
    await until(lambda: listener.pool(MODEL).num_usable == 0)
    assert [a.state for a in watched.look()] == ["warming", "warming"]


def test_what_is_built_while_it_is_asked_for(listener: Listener) -> None:
    """An application that begins to be built between a look's two questions runs on, and does not
    look as if it had scaled to zero."""
    watched = Watched(listener, demo=RUNNING)
    watched.look()
    watched.controller.version["demo"] = 2.0
    watched.controller.untold = {"demo"}
    assert [(a.state, a.room) for a in watched.look()] == [("running", 8)]
