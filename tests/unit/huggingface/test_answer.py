import asyncio

import pytest

from deployments.errors import BackendTimeout
from deployments.huggingface.engine.generation import Delta
from deployments.huggingface.protocol.answer import Answer
from deployments.huggingface.protocol.formats import CompletionFormat
from deployments.huggingface.protocol.response import DONE, Identity, Stream


def answer(num_choices: int = 1, expires_at: float | None = None) -> Answer:
    response = Stream(CompletionFormat(), Identity.of("id", "m"), 1, include_usage=False)
    return Answer(response, num_choices, expires_at)


async def test_pieces_of_a_busy_reader_come_as_one() -> None:
    """What is made while nobody reads leaves as one piece; the end comes after it."""
    sink = answer(num_choices=2)
    for index in (0, 1):
        sink.add(Delta(index, "a", 1))
        sink.add(Delta(index, "", 1, finish_reason="stop"))
    await asyncio.sleep(0)
    piece = await sink.pipe.read()
    assert piece.count(b"data: ") == 5
    assert piece.endswith(DONE)
    assert await sink.pipe.read() == b""


async def test_it_ends_only_with_the_last_choice() -> None:
    """[DONE] is not sent while a choice is open."""
    sink = answer(num_choices=2)
    sink.add(Delta(1, "a", 1, finish_reason="stop"))
    assert DONE not in await sink.pipe.read()


async def test_it_expires() -> None:
    """At its time the answer ends with a timeout, what came before it still being read."""
    sink = answer(expires_at=asyncio.get_running_loop().time())
    sink._write(Delta(0, "a", 1))
    assert b'"a"' in await sink.pipe.read()
    with pytest.raises(BackendTimeout):
        await sink.pipe.read()


class Broken(CompletionFormat):
    """Cannot say what it is given."""

    def chunks(self, delta: Delta) -> list[dict]:
        raise LookupError("no such token")


async def test_what_cannot_be_said_ends_the_answer() -> None:
    """A failure on the way to the client is raised to it: it does not wait for ever."""
    response = Stream(Broken(), Identity.of("id", "m"), 1, include_usage=False)
    sink = Answer(response, 1, None)
    sink.add(Delta(0, "a", 1))
    with pytest.raises(LookupError):
        await sink.pipe.read()


def test_a_closed_loop_is_nobody_to_wait_for() -> None:
    """The engine's thread is not hurt by a client whose event loop is gone."""

    async def make() -> Answer:
        return answer()

    asyncio.run(make()).add(Delta(0, "a", 1))
