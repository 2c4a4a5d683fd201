import asyncio
from collections.abc import Callable

import pytest

from deployments.asgi import AppCall, ASGIApp, Message, Receive, Send
from deployments.exchange import Head

PATH, BODY = "/v1/chat/completions", b'{"a":1}'


def start(status: int = 200, content_type: bytes = b"text/event-stream") -> Message:
    headers = [(b"Content-Type", content_type)]
    return {"type": "http.response.start", "status": status, "headers": headers}


def piece(data: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def taken(
    app: ASGIApp, inspect: Callable[[bytes], None] = lambda _: None
) -> list[Head | bytes]:
    return [item async for item in AppCall(PATH, BODY, "id-1").answer(app, inspect)]


async def test_the_app_sees_an_ordinary_request() -> None:
    """An app finds the path, the whole body at once, and the headers a client would send."""
    seen: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.extend((scope, await receive()))
        await send(start())
        await send(piece(b"", more=False))

    await taken(app)
    scope, message = seen
    assert (scope["type"], scope["method"], scope["path"]) == ("http", "POST", PATH)
    assert dict(scope["headers"]) == {
        b"host": b"localhost",
        b"content-type": b"application/json",
        b"content-length": str(len(BODY)).encode(),
        b"x-request-id": b"id-1",
    }
    assert message == {"type": "http.request", "body": BODY, "more_body": False}


async def test_the_answer_is_head_then_bytes() -> None:
    """Status and content type come first; pieces follow, joined where the reader was busy."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(start(201, b"text/x"))
        await send(piece(b"a"))
        await send(piece(b"b"))
        await send(piece(b"c", more=False))

    head, *rest = await taken(app)
    assert head == Head(201, "text/x")
    assert b"".join(item for item in rest if isinstance(item, bytes)) == b"abc"


async def test_a_piece_is_read_while_the_app_goes_on() -> None:
    """The first piece reaches the reader before the app has made the second."""
    release = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(start())
        await send(piece(b"first"))
        await release.wait()
        await send(piece(b"second", more=False))

    answer = AppCall(PATH, BODY, "id").answer(app, lambda _: None)
    assert isinstance(await anext(answer), Head)
    assert await anext(answer) == b"first"
    release.set()
    assert [item async for item in answer] == [b"second"]


async def test_every_piece_is_inspected_alone() -> None:
    """The caller sees the pieces as the app sent them, not as they were joined."""
    seen: list[bytes] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(start())
        for data in (b"a", b"b"):
            await send(piece(data))
        await send(piece(b"", more=False))

    await taken(app, seen.append)
    assert seen == [b"a", b"b", b""]


@pytest.mark.parametrize("begun", [False, True])
async def test_what_the_app_raises_reaches_the_reader(begun: bool) -> None:
    """An app that fails, before or within its answer, fails its reader: the end is not clean."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if begun:
            await send(start())
            await send(piece(b"a part"))
        raise ValueError("the app's own")

    with pytest.raises(ValueError, match="the app's own"):
        await taken(app)


async def test_an_app_that_says_nothing_is_an_error() -> None:
    """An app that returns without an answer does not leave its reader waiting."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        return

    with pytest.raises(RuntimeError):
        await taken(app)


async def test_closing_the_answer_ends_the_app() -> None:
    """When the reader leaves, the app's work is cancelled before the leaving is done."""
    ended = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        try:
            await send(start())
            await send(piece(b"a"))
            await receive()
            await receive()  # waits for a disconnect that comes as a cancellation instead
        finally:
            ended.set()

    answer = AppCall(PATH, BODY, "id").answer(app, lambda _: None)
    await anext(answer)
    await answer.aclose()
    assert ended.is_set()


async def test_cancelling_the_reader_ends_the_app() -> None:
    """A reader that is cancelled while the app has said nothing yet ends it too."""
    started, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    reading = asyncio.create_task(taken(app))
    await started.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert ended.is_set()
