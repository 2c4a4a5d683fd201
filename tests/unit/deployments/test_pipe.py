import asyncio

import pytest

from deployments.pipe import Pipe


async def test_what_piled_up_comes_as_one_piece() -> None:
    """A reader that was busy gets everything at once, in order."""
    pipe = Pipe()
    for piece in (b"a", b"b", b"c"):
        pipe.write(piece)
    assert await pipe.read() == b"abc"


async def test_the_first_piece_leaves_at_once() -> None:
    """A reader that waits gets the first piece as soon as it is written, with no timer between."""
    pipe = Pipe()
    reading = asyncio.create_task(pipe.read())
    await asyncio.sleep(0)
    pipe.write(b"a")
    assert await reading == b"a"
    reading = asyncio.create_task(pipe.read())
    await asyncio.sleep(0)
    assert not reading.done()
    pipe.end()
    assert await reading == b""


async def test_nothing_is_lost_at_the_end() -> None:
    """What was written before the end is read before the end, which then stays."""
    pipe = Pipe()
    pipe.write(b"a")
    pipe.end()
    pipe.write(b"too late")
    assert [await pipe.read() for _ in range(3)] == [b"a", b"", b""]


async def test_an_error_comes_after_what_was_written() -> None:
    """The reader gets what came before an error, then the error; the first end counts."""
    pipe = Pipe()
    pipe.write(b"a")
    pipe.end(ValueError("the first"))
    pipe.end()
    assert await pipe.read() == b"a"
    with pytest.raises(ValueError, match="the first"):
        await pipe.read()


async def test_empty_pieces_do_not_look_like_the_end() -> None:
    """b"" is the end for a reader, so an empty piece is not passed on."""
    pipe = Pipe()
    pipe.write(b"")
    reading = asyncio.create_task(pipe.read())
    await asyncio.sleep(0)
    assert not reading.done()
    pipe.write(b"a")
    assert await reading == b"a"
