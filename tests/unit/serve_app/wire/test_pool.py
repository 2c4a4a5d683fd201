"""Which replica gets a request, who waits, and what becomes of those that wait."""

import asyncio
from collections.abc import Callable

import pytest

from deployments.errors import BackendOverloaded, ReplicaDied
from deployments.exchange import Exchange, Head
from serve_app.wire import replica_wire
from serve_app.wire.desk import Bundles
from serve_app.wire.inbox import Inbox
from serve_app.wire.listener import Listener
from serve_app.wire.replica_wire import Refused
from tests.polling import until
from tests.unit.serve_app.wire.conftest import MODEL, Replica, all_of, ask, request

Make = Callable[..., "asyncio.Task[Replica]"]


class Gate:
    """Answers when it is told to, in the order in which it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._go = asyncio.Semaphore(0)

    async def answer(self, exchange: Exchange) -> Bundles:
        self.asked.append(exchange.body)
        await self._go.acquire()
        yield [Head(), exchange.body]

    def let(self, num: int) -> None:
        for _ in range(num):
            self._go.release()


async def opened(listener: Listener, body: bytes = b"{}") -> Inbox:
    inbox = await listener.pool(MODEL).open(request(body))
    assert inbox is not None
    return inbox


async def test_the_replica_with_the_fewest_gets_it(listener: Listener, replica: Make) -> None:
    """Ten requests on three replicas are three or four on each."""
    gate = Gate()
    replicas = [await replica(gate.answer) for _ in range(3)]
    inboxes = [await opened(listener) for _ in range(10)]
    await until(lambda: len(gate.asked) == 10)
    assert sorted(one.desk.num_open for one in replicas) == [3, 3, 4]
    gate.let(10)
    for inbox in inboxes:
        await all_of(inbox)


async def test_a_full_replica_is_waited_for_in_order(listener: Listener, replica: Make) -> None:
    """As many at a time as it takes; then as many wait, first come first served; then it is 429."""
    gate = Gate()
    made = await replica(gate.answer, limit=2)
    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(ask(listener, b"%d" % number)))
        await asyncio.sleep(0)
    await until(lambda: listener.pool(MODEL).num_waiting == 2)
    with pytest.raises(BackendOverloaded) as caught:
        await ask(listener, b"one too many")
    assert caught.value.retry_after_s == 1
    await until(lambda: len(gate.asked) == 2)
    assert made.desk.num_open == 2
    gate.let(4)
    assert await asyncio.gather(*tasks) == [b"0", b"1", b"2", b"3"]
    assert gate.asked == [b"0", b"1", b"2", b"3"]


async def test_the_autoscaler_hears_of_those_that_wait(listener: Listener, replica: Make) -> None:
    """While they do, and when nobody does any more."""
    gate = Gate()
    made = await replica(gate.answer, limit=1)
    tasks = [asyncio.create_task(ask(listener, b"%d" % number)) for number in range(2)]
    await until(lambda: made.membership.num_waiting == 1)
    gate.let(2)
    await asyncio.gather(*tasks)
    await until(lambda: made.membership.num_waiting == 0)


async def test_who_leaves_the_queue_leaves_no_gap(listener: Listener, replica: Make) -> None:
    """Neither while it waits, nor in the moment in which it is given its place."""
    gate = Gate()
    await replica(gate.answer, limit=3)
    first, *others = [await opened(listener, b"first") for _ in range(3)]
    waiting = [asyncio.create_task(ask(listener, b"%d" % number)) for number in range(3)]
    await until(lambda: listener.pool(MODEL).num_waiting == 3)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    first.close()  # its place goes to the next in line,
    waiting[1].cancel()  # which leaves before it can take it
    await asyncio.gather(waiting[1], return_exceptions=True)
    await until(lambda: b"2" in gate.asked)
    gate.let(5)
    assert await waiting[2] == b"2"
    for inbox in others:
        await all_of(inbox)
    assert listener.pool(MODEL).wires[0].num_open == 0


async def test_without_a_replica_there_is_no_wire(listener: Listener, replica: Make) -> None:
    """The request is for the handle then; also one that waited when the last replica was lost."""
    assert await listener.pool(MODEL).open(request()) is None
    gate = Gate()
    made = await replica(gate.answer, limit=1)
    await opened(listener)
    waiting = asyncio.create_task(listener.pool(MODEL).open(request()))
    await until(lambda: listener.pool(MODEL).num_waiting == 1)
    made.die()
    assert await waiting is None


async def test_a_wire_that_is_being_cut_is_given_nothing(listener: Listener, replica: Make) -> None:
    """Neither at once, nor in the turn in which the loss is not told yet: the request goes by
    another, and where there is none by the handle."""
    gate = Gate()
    await replica(gate.answer)
    (wire,) = listener.pool(MODEL).wires
    wire.cut()
    assert listener.pool(MODEL).wires == [wire]
    assert await listener.pool(MODEL).open(request()) is None
    await until(lambda: not listener.pool(MODEL).wires)
    assert gate.asked == []


async def test_what_others_have_filled_refuses(listener: Listener, replica: Make) -> None:
    """Two routers cannot know of each other's requests; a replica keeps its limit all the same,
    and is spared for a moment."""
    gate = Gate()
    made = await replica(gate.answer, limit=1)
    other = Listener("127.0.0.1")
    await other.start()
    assert other.ticket is not None
    await made.membership.join(other.ticket)
    await until(lambda: other.pool(MODEL).num_usable == 1)
    inbox = await opened(listener)
    await until(lambda: bool(gate.asked))
    refused = await opened(other)
    with pytest.raises(Refused):
        await all_of(refused)
    again = asyncio.create_task(opened(other))
    gate.let(2)
    await all_of(inbox)
    assert await all_of(await again)
    other.stop()


async def test_a_replica_that_leaves_ends_what_it_has(listener: Listener, replica: Make) -> None:
    """It is given nothing more; what was on its way to it is refused; then it hangs up."""
    gate = Gate()
    old = await replica(gate.answer)
    inbox = await opened(listener, b"old")
    await until(lambda: old.desk.num_open == 1)
    leaving = asyncio.create_task(old.membership.leave())
    late = await opened(listener, b"late")  # before the router has heard of it
    with pytest.raises(Refused):
        await all_of(late)
    assert await listener.pool(MODEL).open(request()) is None
    await replica(gate.answer)
    new = await opened(listener, b"new")
    assert not leaving.done()
    gate.let(2)
    assert b"old" in await all_of(inbox)
    assert b"new" in await all_of(new)
    await leaving
    await until(lambda: len(listener.pool(MODEL).wires) == 1)
    assert gate.asked == [b"old", b"new"]


async def test_a_replica_that_hangs_gives_back_what_it_has_not_begun(
    listener: Listener, replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given nothing more until it speaks again; what it has begun may go on."""
    monkeypatch.setattr(replica_wire, "LOOK_S", 0.05)
    gate = Gate()
    made = await replica(gate.answer)
    (wire,) = made.membership._wires.values()
    inbox = await opened(listener)
    take = wire.data_received
    wire.data_received = lambda data: None  # type: ignore[method-assign]
    with pytest.raises(ReplicaDied):
        await inbox.read()
    assert await listener.pool(MODEL).open(request()) is None
    wire.data_received = take  # type: ignore[method-assign]
    made.membership._wires.popitem()[1]._write(b"")  # nothing is said yet
    wire.leave()  # any word will do
    await until(lambda: listener.pool(MODEL).wires[0]._num_silent == 0)
    inbox.close()


async def test_a_replica_that_thinks_is_not_hung(
    listener: Listener, replica: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its first word takes, as long as it answers when it is asked."""
    monkeypatch.setattr(replica_wire, "LOOK_S", 0.02)
    gate = Gate()
    await replica(gate.answer)
    inbox = await opened(listener)
    looks = 0
    (wire,) = listener.pool(MODEL).wires
    look = wire._look

    def counting() -> None:
        nonlocal looks
        looks += 1
        look()

    wire._look = counting  # type: ignore[method-assign]
    await until(lambda: looks > 4 * replica_wire.HUNG_LOOKS)
    assert wire.is_usable
    gate.let(1)
    await all_of(inbox)
