"""When replicas are called together: on recorded looks at the cluster, with the loop's clock."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from deployments.errors import BackendUnavailable
from serve_app import roll_call
from serve_app.directory import Application
from serve_app.roll_call import RollCall
from serve_app.wire.frames import Ticket
from serve_app.wire.listener import Listener


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener("127.0.0.1")
    await listener.start()
    yield listener
    listener.stop()


class Replicas:
    """Those that are called, and never come."""

    def __init__(self) -> None:
        self.called: list[str] = []

    async def call(self, application: Application, ticket: Ticket) -> None:
        self.called.append(application.name)
        if application.name == "broken":
            raise BackendUnavailable("no replica")


def running(name: str = "demo", num: int = 1, version: float = 1.0) -> Application:
    return Application(name, "echo", "running", 0.0, {"RUNNING": num}, version=version)


async def test_replicas_that_have_no_wire_are_called(listener: Listener) -> None:
    """All that an application has, by one call; those that do not run are left alone."""
    replicas = Replicas()
    call = RollCall(listener, replicas.call)
    call.hold([running(num=3), Application("cold", "echo", "cold", 0.0)])
    await asyncio.sleep(0)
    assert replicas.called == ["demo"]


async def test_who_does_not_come_is_called_more_and_more_seldom(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose requests Serve must count never comes: that costs next to nothing."""
    replicas, now = Replicas(), 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    call = RollCall(listener, replicas.call)
    calls_at = []
    for second in range(400):
        now = float(second)
        num_before = len(replicas.called)
        call.hold([running()])
        await asyncio.sleep(0)
        if len(replicas.called) > num_before:
            calls_at.append(second)
    monkeypatch.undo()
    assert calls_at[:7] == [0, 1, 3, 7, 15, 31, 63]
    gaps = [b - a for a, b in pairwise(calls_at[6:])]
    assert set(gaps) == {int(roll_call.MAX_PAUSE_S)}


async def test_a_change_is_reason_to_call_at_once(listener: Listener) -> None:
    """A replica more, or a new version of the model."""
    replicas = Replicas()
    call = RollCall(listener, replicas.call)
    for look in (running(), running(), running(num=2), running(num=2, version=2.0)):
        call.hold([look])
        await asyncio.sleep(0)
    assert replicas.called == ["demo"] * 3


async def test_a_call_that_fails_harms_no_other(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said in the log, and tried again later."""
    caplog.set_level("WARNING", "roundhouse")
    replicas = Replicas()
    call = RollCall(listener, replicas.call)
    call.hold([running("broken"), running("demo")])
    await asyncio.sleep(0)
    assert replicas.called == ["broken", "demo"]
    assert "broken" in caplog.text
