"""Both ends of the wire on real sockets: a router's listener, and replicas whose answers a test
scripts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from deployments.exchange import Exchange, Head, Item, Tail
from serve_app.wire import router_wire
from serve_app.wire.desk import Bundles, Desk
from serve_app.wire.inbox import Inbox
from serve_app.wire.listener import Listener
from serve_app.wire.membership import Membership
from tests.polling import PATIENCE_S, until

LOOPBACK = "127.0.0.1"
MODEL = "demo"
ANSWER: list[list[Item]] = [[Head(), b"a"], [b"b", b"c"], [Tail(3, 4)]]

Answering = Callable[[Exchange], Bundles]


class Replica:
    """A replica's end, as `serve_app.app.Model` has it."""

    def __init__(self, answer: Answering, limit: int) -> None:
        self.desk = Desk(answer, limit)
        self.membership = Membership(MODEL, self.desk)

    def die(self) -> None:
        """As a process does: its connections are reset, and nothing is said."""
        for wire in self.membership._wires.values():
            wire._hang_up()


async def answer_with(items: Sequence[Sequence[Item]]) -> Bundles:
    for bundle in items:
        yield bundle


async def echo(request: Exchange) -> Bundles:
    """The body, in two pieces."""
    half = len(request.body) // 2
    yield [Head(), request.body[:half]]
    await asyncio.sleep(0)
    yield [request.body[half:], Tail(1, 1)]


def request(body: bytes = b"{}") -> Exchange:
    trace = (("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"), ("tracestate", "vendor=1"))
    return Exchange("/v1/chat/completions", body, "id-1", MODEL, 60.0, trace, logged=False)


async def all_of(inbox: Inbox) -> list[Item]:
    """An answer from here to its end, and closes it."""
    items: list[Item] = []
    try:
        while new := await inbox.read():
            items += new
    finally:
        inbox.close()
    return items


async def ask(listener: Listener, body: bytes = b"{}") -> bytes:
    """One request from end to end; the bytes of its answer."""
    inbox = await listener.pool(MODEL).open(request(body))
    assert inbox is not None
    return b"".join(item for item in await all_of(inbox) if isinstance(item, bytes))


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener(LOOPBACK)
    await listener.start()
    yield listener
    listener.stop()


@pytest.fixture
async def replica(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., "asyncio.Task[Replica]"]]:
    """Makes replicas that have joined the listener, however long the machine takes for that."""
    monkeypatch.setattr(router_wire, "CONNECT_TIMEOUT_S", PATIENCE_S)
    made: list[Replica] = []

    async def make(answer: Answering, limit: int) -> Replica:
        assert listener.ticket is not None
        new = Replica(answer, limit)
        made.append(new)
        num_before = listener.pool(MODEL).num_usable
        assert await new.membership.join(listener.ticket)
        await until(lambda: listener.pool(MODEL).num_usable > num_before)
        return new

    def start(answer: Answering = echo, limit: int = 100) -> "asyncio.Task[Replica]":
        return asyncio.create_task(make(answer, limit))

    yield start
    for one in made:
        one.die()
