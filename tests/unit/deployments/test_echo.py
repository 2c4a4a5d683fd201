import asyncio
import json
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from deployments.config import EchoConfig
from deployments.echo_script import LOOK_EVERY_S, SECRET
from deployments.errors import BackendOverloaded, BackendUnavailable, UnsupportedEndpoint
from deployments.exchange import EVENT_STREAM, Exchange, Head, Item, Tail
from deployments.progress import Progress
from deployments.testing import EchoBackend
from tests.plain_http import CHAT, chat, events_of


@pytest.fixture
def echo() -> EchoBackend:
    return EchoBackend("demo", EchoConfig())


def asking(text: str, path: str = CHAT, **more: Any) -> Exchange:
    body = chat(text, **more) if path == CHAT else {"model": "demo", "prompt": text, **more}
    return Exchange(path, json.dumps(body).encode(), "id-1", "demo")


async def taken(echo: EchoBackend, request: Exchange) -> list[Item]:
    return [item async for item in echo.exchange(request)]


def json_of(items: list[Item]) -> Any:
    return json.loads(b"".join(item for item in items if isinstance(item, bytes)))


async def test_it_answers_with_what_it_was_asked(echo: EchoBackend) -> None:
    """A chat's answer is its last message, in OpenAI's form, with its words counted."""
    items = await taken(echo, asking("hello there, Grüße ☃"))
    answer = json_of(items)
    assert answer["choices"][0]["message"]["content"] == "hello there, Grüße ☃"
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8}
    assert (items[0], items[-1]) == (Head(), Tail(4, 4))


async def test_a_stream_says_the_same(echo: EchoBackend) -> None:
    """A stream has one role, the words one by one, a reason to finish, usage if asked, [DONE]."""
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    head, *rest, tail = await taken(echo, asking("one two", **options))
    *events, done = events_of(b"".join(item for item in rest if isinstance(item, bytes)))
    choices = [event["choices"][0] for event in events[:-1]]
    assert [choice["delta"].get("content") for choice in choices] == ["", "one", " two", None]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]
    assert events[-1]["usage"]["total_tokens"] == 4
    assert (head, tail, done) == (Head(content_type=EVENT_STREAM), Tail(2, 2), "[DONE]")


async def test_completions(echo: EchoBackend) -> None:
    """A prompt is answered as a text completion, up to the limit or the stop string."""
    for more, expected in ({"max_tokens": 2}, "a b"), ({"stop": " c"}, "a b"), ({}, "a b c"):
        answer = json_of(await taken(echo, asking("a b c", "/v1/completions", **more)))
        assert answer["object"] == "text_completion"
        assert answer["choices"][0]["text"] == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[[fail]] a", BackendUnavailable),
        ("a [[fail]]", BackendUnavailable),
        ("[[overload]]", BackendOverloaded),
        ("[[crash]]", RuntimeError),
    ],
)
async def test_directions_that_fail(echo: EchoBackend, text: str, error: type[Exception]) -> None:
    """It fails where and how it is told, and its slot is free after that."""
    with pytest.raises(error):
        await taken(echo, asking(text, stream=True))
    assert echo.num_running == 0


async def test_a_crash_holds_a_secret(echo: EchoBackend) -> None:
    """The unforeseen error carries a secret, for tests to look for where it must not be."""
    with pytest.raises(RuntimeError, match=SECRET):
        await taken(echo, asking("[[crash]]"))


async def test_waiting_ends_when_the_reader_leaves(echo: EchoBackend) -> None:
    """A direction to wait holds the slot until the reader leaves, and no longer."""
    async with aclosing(echo.exchange(asking("a [[wait]]", stream=True))) as items:
        await anext(items)
        assert echo.num_running == 1
    assert echo.num_running == 0


async def test_a_file_is_waited_for(
    echo: EchoBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`[[file=NAME]]` holds the answer until there is such a file among the temporary ones."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with aclosing(echo.exchange(asking("a [[file=sign]]b", stream=True))) as items:
        head, _, first = [await anext(items) for _ in range(3)]
        assert isinstance(head, Head)
        assert isinstance(first, bytes)
        rest = asyncio.create_task(anext(items))
        assert not (await asyncio.wait([rest], timeout=2 * LOOK_EVERY_S))[0]
        (tmp_path / "sign").touch()
        assert b'"b"' in await rest


async def test_waiting_can_be_cancelled(echo: EchoBackend) -> None:
    """An answer that is not streamed is given up when its reader is cancelled."""
    task = asyncio.create_task(taken(echo, asking("[[wait]]")))
    await asyncio.sleep(0)
    assert echo.num_running == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert echo.num_running == 0


async def test_other_endpoints_are_refused(echo: EchoBackend) -> None:
    """A path that it does not answer is an unsupported endpoint."""
    with pytest.raises(UnsupportedEndpoint):
        await taken(echo, Exchange("/v1/embeddings", b'{"model":"demo"}', "id", "demo"))


async def test_it_tells_how_far_its_start_is() -> None:
    """A start is reported from its beginning: what shows it can be tried without a model."""
    told: list[Progress] = []
    await EchoBackend("demo", EchoConfig()).start(told.append)
    assert [(p.stage, p.percent, p.done_bytes, p.total_bytes) for p in told] == [
        ("loading weights", 25.0, 1, 4)
    ]
    assert Progress("downloading").percent is None
