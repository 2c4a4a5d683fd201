"""The wire, both ends on real sockets: what a replica puts in comes out at the router."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress

import pytest

from deployments.errors import BackendUnavailable
from deployments.exchange import Head, Item, Tail
from serve_app.wire.frames import (
    HELLO_BYTES,
    MAX_PAYLOAD_BYTES,
    PREFIX,
    SECRET_BYTES,
    WELCOME,
    Frames,
    Kind,
    Ticket,
    frame,
)
from serve_app.wire.inbox import HIGH_WATER_BYTES, Inbox
from serve_app.wire.receiver import Receiver
from serve_app.wire.sender import NO_WIRE, Sender
from tests.polling import until

LOOPBACK = "127.0.0.1"
ANSWER: list[list[Item]] = [[Head(), b"a"], [b"b", b"c"], [Tail(3, 4)]]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver(LOOPBACK)
    await receiver.start()
    yield receiver
    receiver.stop()


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    sender = Sender()
    yield sender
    sender.close()


async def bundles(answer: Sequence[Sequence[Item]]) -> AsyncGenerator[Sequence[Item], None]:
    for bundle in answer:
        yield bundle


async def all_of(inbox: Inbox) -> list[Item]:
    items: list[Item] = []
    while new := await inbox.read():
        items += new
    return items


async def exchange(receiver: Receiver, sender: Sender, answer: Sequence[Sequence[Item]]) -> bytes:
    """One answer from end to end; its bytes."""
    with receiver.inbox() as inbox:
        messages = sender.carry(inbox.ticket, bundles(answer))
        wire_id = await anext(messages)
        assert isinstance(wire_id, bytes)
        receiver.bind(inbox, wire_id)
        reading = asyncio.create_task(all_of(inbox))
        assert [message async for message in messages] == []
        items = await reading
    return b"".join(item for item in items if isinstance(item, bytes))


async def test_an_answer_arrives_whole_and_in_order(receiver: Receiver, sender: Sender) -> None:
    """Head, bytes, tail, and then its end; nothing of it is left behind."""
    with receiver.inbox() as inbox:
        messages = sender.carry(inbox.ticket, bundles(ANSWER))
        receiver.bind(inbox, await anext(messages))  # type: ignore[arg-type]
        assert [message async for message in messages] == []
        items = await all_of(inbox)
    assert items[0] == Head()
    assert items[-1] == Tail(3, 4)
    assert b"".join(item for item in items if isinstance(item, bytes)) == b"abc"
    assert receiver.num_open == 0


async def test_answers_at_once_do_not_mix(receiver: Receiver, sender: Sender) -> None:
    """A hundred answers share one connection, and each gets its own."""
    answers = [[[Head()], *([b"%d," % number] for _ in range(50))] for number in range(100)]
    came = await asyncio.gather(*(exchange(receiver, sender, answer) for answer in answers))
    assert came == [b"%d," % number * 50 for number in range(100)]
    assert len(receiver._wires) == 1


async def test_bytes_that_a_busy_client_let_lie_come_as_one(
    receiver: Receiver, sender: Sender
) -> None:
    """So a router that is behind catches up."""
    with receiver.inbox() as inbox:
        messages = sender.carry(inbox.ticket, bundles([[b"x"]] * 20))
        receiver.bind(inbox, await anext(messages))  # type: ignore[arg-type]
        assert [message async for message in messages] == []
        await until(lambda: inbox._over, 5)  # it has all arrived
        assert await inbox.read() == [b"x" * 20]


async def test_an_answer_longer_than_a_frame_arrives(receiver: Receiver, sender: Sender) -> None:
    """An answer's length has no bound."""
    long = bytes(3 * MAX_PAYLOAD_BYTES + 1)
    assert await exchange(receiver, sender, [[long]]) == long


async def test_a_slow_client_holds_back_its_own_answer_only(
    receiver: Receiver, sender: Sender
) -> None:
    """The router keeps little of an answer that is not taken; the one beside it goes on."""
    piece, taken = bytes(64 * 1024), 0

    async def endless() -> AsyncGenerator[Sequence[Item], None]:
        nonlocal taken
        while True:
            taken += 1
            yield [piece]

    with receiver.inbox() as inbox:
        messages = sender.carry(inbox.ticket, endless())
        receiver.bind(inbox, await anext(messages))  # type: ignore[arg-type]
        sending = asyncio.ensure_future(anext(messages))
        await until(lambda: inbox._paused, 5)
        assert await exchange(receiver, sender, ANSWER) == b"abc"
        held_at = taken
        assert await exchange(receiver, sender, ANSWER) == b"abc"
        assert taken == held_at
        assert inbox._num_bytes < 64 * HIGH_WATER_BYTES

        await inbox.read()  # the client takes it: the replica goes on
        await until(lambda: taken > held_at, 5)
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending


async def test_a_replica_that_dies_breaks_its_answers_off(
    receiver: Receiver, sender: Sender
) -> None:
    """What came is given out, and then the error; no caller hangs."""

    async def stuck() -> AsyncGenerator[Sequence[Item], None]:
        yield [Head(), b"a"]
        await asyncio.Event().wait()

    with receiver.inbox() as inbox:
        messages = sender.carry(inbox.ticket, stuck())
        receiver.bind(inbox, await anext(messages))  # type: ignore[arg-type]
        sending = asyncio.ensure_future(anext(messages))
        assert await inbox.read() == [Head(), b"a"]
        sender.close()
        with pytest.raises(BackendUnavailable):
            await inbox.read()
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending


async def test_a_wire_that_is_lost_already_is_an_error(receiver: Receiver) -> None:
    """Also if it was lost before the router heard of it."""
    with receiver.inbox() as inbox:
        receiver.bind(inbox, b"never was")
        with pytest.raises(BackendUnavailable):
            await inbox.read()


async def test_after_its_end_an_answer_cannot_be_lost(receiver: Receiver, sender: Sender) -> None:
    """A replica that goes when it has said all takes nothing back."""
    with receiver.inbox() as inbox:
        messages = sender.carry(inbox.ticket, bundles(ANSWER))
        receiver.bind(inbox, await anext(messages))  # type: ignore[arg-type]
        assert [message async for message in messages] == []
        await until(lambda: inbox._over, 5)
        sender.close()
        assert len(await all_of(inbox)) == 3


async def test_the_backend_begins_before_the_handle_is_heard(
    receiver: Receiver, sender: Sender
) -> None:
    """The answer may be there before the name of its wire is, and is none the worse for it."""
    with receiver.inbox() as inbox:
        messages = sender.carry(inbox.ticket, bundles(ANSWER))
        wire_id = await anext(messages)
        await until(lambda: inbox._over, 5)
        receiver.bind(inbox, wire_id)  # type: ignore[arg-type]
        assert len(await all_of(inbox)) == 3
        assert [message async for message in messages] == []


async def test_a_call_that_is_closed_closes_the_backends(
    receiver: Receiver, sender: Sender
) -> None:
    """At once, whether it was about to send or to make the next piece."""
    closed = asyncio.Event()

    async def stuck() -> AsyncGenerator[Sequence[Item], None]:
        try:
            yield [Head()]
            await asyncio.Event().wait()
        finally:
            closed.set()

    with receiver.inbox() as inbox:
        messages = sender.carry(inbox.ticket, stuck())
        receiver.bind(inbox, await anext(messages))  # type: ignore[arg-type]
        assert await inbox.read() == [Head()]
        await messages.aclose()
        assert closed.is_set()


async def test_a_router_that_is_gone_ends_the_answer(receiver: Receiver, sender: Sender) -> None:
    """The backend's work for it ends, too: its generator is closed by the error."""

    async def endless() -> AsyncGenerator[Sequence[Item], None]:
        while True:
            await asyncio.sleep(0)
            yield [b"x"]

    with receiver.inbox() as inbox:
        messages = sender.carry(inbox.ticket, endless())
        receiver.bind(inbox, await anext(messages))  # type: ignore[arg-type]
        receiver.stop()
        with pytest.raises(ConnectionError):
            await anext(messages)


async def test_without_a_wire_the_answer_goes_by_the_handle(sender: Sender) -> None:
    """Where a router cannot be reached; it is not tried again for every request."""
    tries = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.transport.abort()

    server = await asyncio.start_server(refuse, LOOPBACK, 0)
    ticket = Ticket(LOOPBACK, server.sockets[0].getsockname()[1], bytes(SECRET_BYTES), 1)
    for _ in range(3):
        messages = [message async for message in sender.carry(ticket, bundles(ANSWER))]
        assert messages == [NO_WIRE, *ANSWER]
    assert tries == 1
    server.close()


async def test_a_router_that_cannot_listen_still_serves(sender: Sender) -> None:
    """Its node's address may not be its own, behind a NAT; answers then go by the handle."""
    receiver = Receiver("203.0.113.1")  # nobody's: RFC 5737
    await receiver.start()
    with receiver.inbox() as inbox:
        assert inbox.ticket is None
        messages = [message async for message in sender.carry(inbox.ticket, bundles(ANSWER))]
    assert messages == [NO_WIRE, *ANSWER]


async def test_what_is_said_in_one_turn_leaves_in_one_piece(sender: Sender) -> None:
    """An engine ends a step for all of its requests at once: that is one message, not one each."""
    pieces: list[bytes] = []

    async def router(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(HELLO_BYTES)
        writer.write(WELCOME)
        while data := await reader.read(1 << 16):
            pieces.append(data)
        writer.close()
        gone.set()

    server = await asyncio.start_server(router, LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    step, gone, num_begun = asyncio.Event(), asyncio.Event(), 0

    async def answer(number: int) -> AsyncGenerator[Sequence[Item], None]:
        nonlocal num_begun
        num_begun += 1
        await step.wait()
        yield [b"%d" % number]

    async def one(number: int) -> None:
        ticket = Ticket(LOOPBACK, port, bytes(SECRET_BYTES), number)
        async for _ in sender.carry(ticket, answer(number)):
            pass

    tasks = [asyncio.create_task(one(number)) for number in range(32)]
    await until(lambda: num_begun == 32, 5)
    step.set()
    await asyncio.gather(*tasks)
    await until(lambda: b"".join(pieces).count(PREFIX.pack(31, Kind.END, 0)) == 1, 5)
    first = list(Frames().cut(pieces[0]))
    assert {stream for stream, kind, _ in first if kind == Kind.BYTES} == set(range(32))
    sender.close()
    await gone.wait()
    server.close()


async def test_who_does_not_know_the_secret_is_not_heard(receiver: Receiver) -> None:
    """A stranger's connection is cut, and no answer is touched."""
    with receiver.inbox() as inbox:
        assert inbox.ticket is not None
        reader, writer = await asyncio.open_connection(LOOPBACK, inbox.ticket.port)
        writer.write(bytes(HELLO_BYTES))
        writer.write(frame(inbox.ticket.stream, Kind.BYTES, b"forged"))
        with suppress(ConnectionError):
            assert await reader.read() == b""
        assert inbox._items == []
        writer.close()


async def test_a_wire_that_carries_no_frames_is_cut(receiver: Receiver) -> None:
    """Its answers end with an error, and other wires go on."""
    with receiver.inbox() as inbox:
        assert inbox.ticket is not None
        reader, writer = await asyncio.open_connection(LOOPBACK, inbox.ticket.port)
        writer.write(inbox.ticket.secret + b"w" * (HELLO_BYTES - SECRET_BYTES))
        assert await reader.readexactly(1) == WELCOME
        receiver.bind(inbox, b"w" * (HELLO_BYTES - SECRET_BYTES))
        writer.write(b"\xff" * 64)
        with pytest.raises(BackendUnavailable):
            await inbox.read()
        writer.close()


async def test_what_comes_too_late_is_dropped(receiver: Receiver, sender: Sender) -> None:
    """A client has left; its answer's rest harms nobody."""
    with receiver.inbox() as inbox:
        ticket = inbox.ticket
    async for _ in sender.carry(ticket, bundles(ANSWER)):
        pass
    assert await exchange(receiver, sender, ANSWER) == b"abc"
    assert receiver.num_open == 0
