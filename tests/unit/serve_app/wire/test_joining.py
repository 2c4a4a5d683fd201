"""How replicas and routers find each other, and who is not let in."""

import asyncio
import contextvars
import socket
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest

from deployments.errors import BackendUnavailable
from deployments.exchange import Exchange, Head
from serve_app.wire import replica_wire
from serve_app.wire.desk import Bundles
from serve_app.wire.frames import SECRET_BYTES, Kind, Member, Ticket, frame
from serve_app.wire.keepalive import IDLE_S, INTERVAL_S, NUM_PROBES, OPTIONS
from serve_app.wire.listener import Listener
from tests.polling import until
from tests.unit.serve_app.wire.conftest import LOOPBACK, MODEL, Replica, ask, echo, request

Make = Callable[..., "asyncio.Task[Replica]"]


async def test_who_is_called_twice_joins_once(listener: Listener, replica: Make) -> None:
    """A wire that is there is kept; one that was lost is made again."""
    made = await replica()
    assert listener.ticket is not None
    assert all(await asyncio.gather(*(made.membership.join(listener.ticket) for _ in range(5))))
    assert len(listener.pool(MODEL).wires) == 1
    made.die()
    await until(lambda: not listener.pool(MODEL).wires)
    await until(lambda: all(w.is_stale for w in made.membership._wires.values()))
    assert await made.membership.join(listener.ticket)
    await until(lambda: listener.pool(MODEL).num_usable == 1)
    assert await ask(listener, b"again") == b"again"


async def test_a_router_that_cannot_be_reached_is_not_tried_again_soon() -> None:
    """It calls again and again; that must not cost a connection each time."""
    one = Replica(echo, 1)
    with socket.socket() as deaf:  # it has the port, and does not listen
        deaf.bind((LOOPBACK, 0))
        ticket = Ticket(LOOPBACK, deaf.getsockname()[1], bytes(SECRET_BYTES))
        assert not await one.membership.join(ticket)
        (wire,) = one.membership._wires.values()
        assert not await one.membership.join(ticket)
    assert list(one.membership._wires.values()) == [wire]


async def test_a_router_that_cannot_listen_has_no_tickets() -> None:
    """Its node's address may not be its own, behind a NAT; requests then go by the handle."""
    listener = Listener("203.0.113.1")  # nobody's: RFC 5737
    await listener.start()
    assert listener.ticket is None
    assert await listener.pool(MODEL).open(request()) is None


async def test_who_does_not_know_the_secret_is_not_heard(listener: Listener) -> None:
    """A stranger's connection is cut, and nobody is given its requests."""
    assert listener.ticket is not None
    reader, writer = await asyncio.open_connection(LOOPBACK, listener.ticket.port)
    writer.write(bytes(SECRET_BYTES))
    writer.write(frame(0, Kind.JOIN, b"forged"))
    with suppress(ConnectionError):
        assert await reader.read() == b""
    assert listener.pool(MODEL).wires == []
    writer.close()


async def test_who_says_nothing_is_not_waited_for(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that does not introduce itself is cut, and leaves nothing."""
    monkeypatch.setattr(replica_wire, "JOIN_TIMEOUT_S", 0.05)
    assert listener.ticket is not None
    reader, writer = await asyncio.open_connection(LOOPBACK, listener.ticket.port)
    writer.write(listener.ticket.secret)
    with suppress(ConnectionError):
        assert await reader.read() == b""
    assert not listener._wires
    writer.close()


async def test_a_wire_that_carries_no_frames_is_cut(listener: Listener) -> None:
    """Its answers end with an error, and the router goes on."""
    assert listener.ticket is not None
    _, writer = await asyncio.open_connection(LOOPBACK, listener.ticket.port)

    member = msgspec.msgpack.encode(Member(MODEL, 10))
    writer.write(listener.ticket.secret + frame(0, Kind.JOIN, member))
    await until(lambda: listener.pool(MODEL).num_usable == 1)
    inbox = await listener.pool(MODEL).open(request())
    assert inbox is not None
    writer.write(b"\xff" * 64)
    with pytest.raises(BackendUnavailable):
        await inbox.read()
    inbox.close()
    writer.close()


async def test_a_request_does_not_run_in_the_context_of_the_call_that_joined(
    listener: Listener, replica: Make
) -> None:
    """Or Serve would log that call's request id with each of them."""

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("call", default="none")
    seen = []

    async def answer(exchange: Exchange) -> Bundles:
        seen.append(variable.get())
        yield [Head()]

    assert listener.ticket is not None
    one = Replica(answer, 1)
    variable.set("join")
    await one.membership.join(listener.ticket)
    await until(lambda: listener.pool(MODEL).num_usable == 1)
    await ask(listener)
    assert seen == ["none"]
    one.die()


async def test_a_node_that_is_gone_is_noticed_at_both_ends(
    listener: Listener, replica: Make
) -> None:
    """Nobody is there to hang up: the kernel asks, and breaks the connection off within 25 s."""
    made = await replica()
    ends = [*listener.pool(MODEL).wires, *made.membership._wires.values()]
    for end in ends:
        assert end._transport is not None
        connection = end._transport.get_extra_info("socket")
        for level, name, value in OPTIONS:
            assert connection.getsockopt(level, getattr(socket, name)) == value
    assert IDLE_S + INTERVAL_S * NUM_PROBES <= 25
