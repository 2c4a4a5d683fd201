"""One request and its answer over the wire, both ends on real sockets."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from deployments.errors import BackendUnavailable, ContextTooLong, RoundhouseError
from deployments.exchange import Exchange, Head, Item, Tail
from serve_app.wire.desk import Bundles
from serve_app.wire.frames import MAX_PAYLOAD_BYTES
from serve_app.wire.inbox import HIGH_WATER_BYTES
from serve_app.wire.listener import Listener
from tests.polling import PATIENCE_S, until
from tests.unit.serve_app.wire.conftest import (
    ANSWER,
    MODEL,
    Replica,
    all_of,
    answer_with,
    ask,
    request,
)

Make = Callable[..., "asyncio.Task[Replica]"]


def waiting(bundle: list[Item], closed: asyncio.Event) -> Callable[[Exchange], Bundles]:
    """An answer that begins with the bundle and then waits; its end sets the event."""

    async def answer(exchange: Exchange) -> Bundles:
        try:
            yield bundle
            await asyncio.Event().wait()
        finally:
            closed.set()

    return answer


async def test_a_request_arrives_as_it_left(listener: Listener, replica: Make) -> None:
    """Path, body, id, model, deadline, trace, and whether it is logged."""
    came: list[Exchange] = []

    async def answer(exchange: Exchange) -> Bundles:
        came.append(exchange)
        yield [Head()]

    await replica(answer)
    await ask(listener, b'{"a": 1}')
    assert came == [request(b'{"a": 1}')]


async def test_an_answer_arrives_whole_and_in_order(listener: Listener, replica: Make) -> None:
    """Head, bytes, tail, and then its end; nothing of it is left behind at either end."""
    made = await replica(lambda _: answer_with(ANSWER))
    inbox = await listener.pool(MODEL).open(request())
    assert inbox is not None
    items = await all_of(inbox)
    assert items[0] == Head()
    assert items[-1] == Tail(3, 4)
    assert b"".join(item for item in items if isinstance(item, bytes)) == b"abc"
    assert listener.pool(MODEL).wires[0].num_open == 0
    await until(lambda: made.desk.num_open == 0)


async def test_exchanges_at_once_do_not_mix(listener: Listener, replica: Make) -> None:
    """A hundred share one connection, and each gets its own."""
    await replica()
    bodies = [b'{"nonce": "%d"}' % number * 50 for number in range(100)]
    assert await asyncio.gather(*(ask(listener, body) for body in bodies)) == bodies
    assert len(listener.pool(MODEL).wires) == 1


async def test_length_has_no_bound(listener: Listener, replica: Make) -> None:
    """Requests and answers longer than a frame arrive; a short one beside them does too."""
    await replica()
    long = bytes(range(256)) * (3 * MAX_PAYLOAD_BYTES // 256) + b"end"
    came = await asyncio.gather(ask(listener, long), ask(listener, b"short"))
    assert came == [long, b"short"]


async def test_bytes_that_a_busy_client_let_lie_come_as_one(
    listener: Listener, replica: Make
) -> None:
    """So a router that is behind catches up."""
    await replica(lambda _: answer_with([[b"x"]] * 20))
    inbox = await listener.pool(MODEL).open(request())
    assert inbox is not None
    await until(lambda: inbox.over)
    assert await inbox.read() == [b"x" * 20]


async def test_a_slow_client_holds_back_its_own_answer_only(
    listener: Listener, replica: Make
) -> None:
    """The router keeps little of an answer that is not taken; the one beside it goes on."""
    taken = 0

    async def answer(exchange: Exchange) -> Bundles:
        nonlocal taken
        while exchange.body == b"endless":
            taken += 1
            yield [bytes(64 * 1024)]
        yield [b"short"]

    await replica(answer)
    inbox = await listener.pool(MODEL).open(request(b"endless"))
    assert inbox is not None
    await until(lambda: inbox._paused)
    assert await ask(listener) == b"short"
    held_at = taken
    assert await ask(listener) == b"short"
    assert taken == held_at
    assert inbox._num_bytes < 64 * HIGH_WATER_BYTES
    await inbox.read()  # the client takes it: the replica goes on
    await until(lambda: taken > held_at)
    inbox.close()


async def test_a_client_that_leaves_frees_the_slot(listener: Listener, replica: Make) -> None:
    """The backend's generator is closed at once, whether it was about to make or to send a piece;
    what came too late harms nobody."""
    closed = asyncio.Event()
    answer = waiting([Head()], closed)
    made = await replica(answer)
    inbox = await listener.pool(MODEL).open(request())
    assert inbox is not None
    assert await inbox.read() == [Head()]
    inbox.close()
    await asyncio.wait_for(closed.wait(), PATIENCE_S)
    await until(lambda: made.desk.num_open == 0)
    assert listener.pool(MODEL).wires[0].num_open == 0


@pytest.mark.parametrize("begun", [False, True])
async def test_an_error_arrives_as_it_was_raised(
    listener: Listener, replica: Make, begun: bool
) -> None:
    """Its class, and all that a client is told; after what had come of the answer."""

    async def answer(exchange: Exchange) -> Bundles:
        if begun:
            yield [Head(), b"a"]
        error = ContextTooLong("too long", "messages", retry_after_s=2)
        raise error

    await replica(answer)
    inbox = await listener.pool(MODEL).open(request())
    assert inbox is not None
    if begun:
        assert await inbox.read() == [Head(), b"a"]
    with pytest.raises(ContextTooLong) as caught:
        await inbox.read()
    inbox.close()
    error = caught.value
    assert (error.message, error.param, error.code) == (
        "too long",
        "messages",
        "context_length_exceeded",
    )
    assert error.retry_after_s == 2


async def test_what_nobody_foresaw_names_no_internals(
    listener: Listener, replica: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets the general error; the replica's log says what it was, once."""

    async def answer(exchange: Exchange) -> Bundles:
        yield [Head()]
        raise KeyError("internal")

    await replica(answer)
    inbox = await listener.pool(MODEL).open(request())
    assert inbox is not None
    with pytest.raises(RoundhouseError) as caught:
        await all_of(inbox)
    assert type(caught.value) is RoundhouseError
    assert "internal" not in caught.value.message
    assert sum("id-1" in record.getMessage() for record in caplog.records) == 1


async def test_a_backend_that_gives_up_does_not_leave_its_client_waiting(
    listener: Listener, replica: Make
) -> None:
    """Also where a library lets its own cancellation out."""

    async def answer(exchange: Exchange) -> Bundles:
        yield [Head()]
        raise asyncio.CancelledError

    await replica(answer)
    inbox = await listener.pool(MODEL).open(request())
    assert inbox is not None
    with pytest.raises(BackendUnavailable):
        await all_of(inbox)


async def test_what_is_said_in_one_turn_leaves_in_one_piece(
    listener: Listener, replica: Make
) -> None:
    """An engine ends a step for all of its requests at once: that is one message, not one each."""
    step, num_begun = asyncio.Event(), 0

    async def answer(exchange: Exchange) -> Bundles:
        nonlocal num_begun
        num_begun += 1
        await step.wait()
        yield [exchange.body]

    await replica(answer)
    (wire,) = listener.pool(MODEL).wires
    pieces: list[bytes] = []
    take = wire.data_received

    def noting(data: bytes) -> None:
        pieces.append(data)
        take(data)

    wire.data_received = noting  # type: ignore[method-assign]
    bodies = [b"number %d" % number for number in range(32)]
    tasks = [asyncio.create_task(ask(listener, body)) for body in bodies]
    await until(lambda: num_begun == 32)
    pieces.clear()
    step.set()
    assert await asyncio.gather(*tasks) == bodies
    assert all(body in pieces[0] for body in bodies)


async def test_a_replica_that_dies_breaks_its_answers_off(
    listener: Listener, replica: Make
) -> None:
    """What came is given out, and then the error; no caller hangs, and its work ends."""
    closed = asyncio.Event()
    answer = waiting([Head(), b"a"], closed)
    made = await replica(answer)
    inbox = await listener.pool(MODEL).open(request())
    assert inbox is not None
    assert await inbox.read() == [Head(), b"a"]
    made.die()
    with pytest.raises(BackendUnavailable):
        await inbox.read()
    inbox.close()
    await asyncio.wait_for(closed.wait(), PATIENCE_S)


async def test_after_its_end_an_answer_cannot_be_lost(listener: Listener, replica: Make) -> None:
    """A replica that goes when it has said all takes nothing back."""
    made = await replica(lambda _: answer_with(ANSWER))
    inbox = await listener.pool(MODEL).open(request())
    assert inbox is not None
    await until(lambda: inbox.over)
    made.die()
    await until(lambda: not listener.pool(MODEL).wires)
    assert len(await all_of(inbox)) == 3


async def test_a_router_that_dies_ends_its_requests(listener: Listener, replica: Make) -> None:
    """The backend's work for them ends too."""
    closed = asyncio.Event()

    async def answer(exchange: Exchange) -> Bundles:
        try:
            while True:
                await asyncio.sleep(0)
                yield [b"x"]
        finally:
            closed.set()

    made = await replica(answer)
    inbox = await listener.pool(MODEL).open(request())
    assert inbox is not None
    await inbox.read()
    listener.stop()
    await asyncio.wait_for(closed.wait(), PATIENCE_S)
    await until(lambda: made.desk.num_open == 0)
    with suppress(BackendUnavailable):
        await all_of(inbox)
