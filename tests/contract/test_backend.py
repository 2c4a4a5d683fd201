"""What every backend promises, asked of every backend."""

import asyncio
import contextlib
import json
import uuid
from typing import Any

import pytest

from deployments.errors import UnsupportedEndpoint
from deployments.exchange import EVENT_STREAM, JSON, Head, Tail
from deployments.load import Load
from tests.contract.asking import Answered, ask, exchange, saying
from tests.contract.subjects import GENERATING, MODEL, Subject
from tests.polling import until

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    # The engines run in this process: as an error, a warning of theirs would be a failed answer.
    pytest.mark.filterwarnings("ignore"),
]

TEXT = "lantern"
LONG = {"max_tokens": 1500, "ignore_eos": True}


@pytest.mark.parametrize("stream", [False, True])
async def test_order(subject: Subject, stream: bool) -> None:
    """An answer is one Head, then bytes, then one Tail where the cost is known."""
    answered = await ask(subject.backend, saying(subject, TEXT, stream=stream))
    kinds = [type(item) for item in answered.items]
    # An upstream does not say what a stream cost, unless it is asked.
    tail = [] if stream and subject.name == "api" else [Tail]
    assert kinds == [Head, *[bytes] * len(answered.pieces), *tail]
    assert answered.head.status == 200
    assert answered.head.content_type.startswith(EVENT_STREAM if stream else JSON)


@pytest.mark.parametrize("stream", [False, True])
async def test_answer(subject: Subject, stream: bool) -> None:
    """The text is the same, streamed or not."""
    assert (await ask(subject.backend, saying(subject, TEXT, stream=stream))).text.strip() == TEXT


async def test_stream_shape(subject: Subject) -> None:
    """A stream gives the role once and first, one finish reason and last, and ends with DONE."""
    answered = await ask(subject.backend, saying(subject, "one two three four", stream=True))
    assert answered.events[-1] == "[DONE]"
    choices = [chunk["choices"][0] for chunk in answered.chunks]
    assert [c["delta"].get("role") for c in choices] == ["assistant", *[None] * (len(choices) - 1)]
    assert [c["finish_reason"] for c in choices] == [*[None] * (len(choices) - 1), "stop"]
    assert {chunk["object"] for chunk in answered.chunks} == {"chat.completion.chunk"}


async def test_model_name(subject: Subject) -> None:
    """The answer bears the model id that the router resolved, whatever alias the body has."""
    if subject.name == "api":
        pytest.skip("the answer is the upstream's, byte for byte")
    request = saying(subject, TEXT, model="an-alias")
    assert (await ask(subject.backend, request)).json["model"] == MODEL


async def test_usage(subject: Subject) -> None:
    """Usage is the tokenizer's count of prompt and answer, and the Tail says the same."""
    answered = await ask(subject.backend, saying(subject, TEXT))
    prompt = subject.prompt_tokens(subject.say(TEXT))
    completion = subject.answer_tokens(answered.text)
    usage = answered.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, completion)
    assert usage["total_tokens"] == prompt + completion
    assert answered.tail == Tail(prompt, completion)


async def test_usage_of_stream(subject: Subject) -> None:
    """With include_usage one last chunk without choices has the usage, and the Tail agrees."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    answered = await ask(subject.backend, saying(subject, TEXT, **options))
    last = answered.chunks[-1]
    assert last["choices"] == []
    assert answered.tail == Tail(last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"])
    assert answered.tail.prompt_tokens == subject.prompt_tokens(subject.say(TEXT))


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_string(subject: Subject, stream: bool) -> None:
    """A stop string that begins in one chunk and ends in another stops, and is not shown."""
    request = saying(subject, "one two three four", stop=["wo th"], stream=stream)
    assert (await ask(subject.backend, request)).text == "one t"


async def test_unicode(subject: Subject) -> None:
    """No piece of a stream breaks a character, and none of it is lost."""
    text = "café 🎉"
    answered = await ask(subject.backend, saying(subject, text, stream=True))
    contents = [c["choices"][0]["delta"].get("content") or "" for c in answered.chunks]
    assert "".join(contents).strip() == text
    assert not any("\ufffd" in content for content in contents)


async def test_no_cross_talk(subject: Subject) -> None:
    """Each of many requests at once gets its own answer."""
    nonces = [uuid.uuid4().hex[:6] for _ in range(16)]
    requests = [saying(subject, n, stream=i % 2 == 0) for i, n in enumerate(nonces)]
    answers = await asyncio.gather(*(ask(subject.backend, request) for request in requests))
    alone = [await ask(subject.backend, request) for request in requests]
    assert [a.text for a in answers] == [a.text for a in alone]
    assert sum(nonce in a.text for nonce, a in zip(nonces, answers, strict=True)) >= 12


def waiting(subject: Subject, stream: bool) -> dict[str, Any]:
    """A request that is under way until it is given up."""
    if subject.name in {"echo", "api"}:
        content = "one two [[wait]]" if stream else "[[wait]]"
        return {"messages": [{"role": "user", "content": content}], "stream": stream}
    messages = [{"role": "user", "content": "Count from 1 to 60."}]
    return {"messages": messages, "stream": stream, **LONG}


async def until_idle(subject: Subject) -> None:
    """Returns when nothing is running."""
    await until(lambda: not (subject.work.num_running or subject.backend.num_running))


async def test_cancel_stream(subject: Subject) -> None:
    """Closing a stream frees the backend's slot."""
    items = subject.backend.exchange(exchange(waiting(subject, stream=True)))
    async with contextlib.aclosing(items):
        assert isinstance(await anext(items), Head)
        assert isinstance(await anext(items), bytes)
        assert subject.work.num_running == 1
    await until_idle(subject)


async def test_cancel_unary(subject: Subject) -> None:
    """Cancelling the task that waits for an answer frees the backend's slot."""
    task = asyncio.create_task(ask(subject.backend, exchange(waiting(subject, stream=False))))
    await until(lambda: subject.work.num_running > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_idle(subject)


async def test_cancel_many(subject: Subject) -> None:
    """Requests given up while others run harm none of those, and leave nothing behind."""
    doomed = [
        asyncio.create_task(ask(subject.backend, exchange(waiting(subject, stream=True))))
        for _ in range(8)
    ]
    kept = asyncio.create_task(ask(subject.backend, saying(subject, TEXT)))
    await until(lambda: subject.work.num_running >= len(doomed))
    for task in doomed:
        task.cancel()
    await asyncio.wait(doomed)
    assert (await kept).text.strip() == TEXT
    await until_idle(subject)


async def test_load(subject: Subject) -> None:
    """The load counts what is being worked on, and is nothing once that has ended; a model that
    keeps keys and values says how much of their room is taken."""
    backend = subject.backend
    task = asyncio.create_task(ask(backend, exchange(waiting(subject, stream=False))))
    await until(lambda: backend.load().num_running > 0)
    load = backend.load()
    assert load.num_waiting == 0
    assert 0 <= load.kv_use <= 1
    assert (load.kv_use > 0) == (subject.name in GENERATING)
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: backend.load() == Load(0))


async def test_unsupported_endpoint(subject: Subject) -> None:
    """A path that the backend does not answer is refused by name, with OpenAI's status."""
    request = exchange({"input": "text"}, path="/v1/no/such/endpoint")
    with pytest.raises(UnsupportedEndpoint):
        await ask(subject.backend, request)


async def test_bad_request_harms_nobody(subject: Subject) -> None:
    """A request that fails does so alone."""
    bad = exchange({"messages": [{"role": "user", "content": {"not": "text"}}]})
    results = await asyncio.gather(
        ask(subject.backend, saying(subject, TEXT)),
        ask(subject.backend, bad),
        ask(subject.backend, saying(subject, TEXT, stream=True)),
        return_exceptions=True,
    )
    good = [r for r in (results[0], results[2]) if isinstance(r, Answered)]
    assert [answered.text.strip() for answered in good] == [TEXT, TEXT]
    if isinstance(results[1], Answered):
        assert results[1].head.status == 400
    else:
        assert getattr(results[1], "status", None) == 400


async def test_health_and_card(subject: Subject) -> None:
    """A started backend is well, and says what it serves."""
    await subject.backend.check_health()
    assert subject.backend.card().models[0] == MODEL
    assert subject.backend.card().backend == subject.name


async def test_completions(subject: Subject) -> None:
    """Plain completions are answered in their own shape."""
    request = exchange({"prompt": "alpha beta", "max_tokens": 3}, path="/v1/completions")
    answer = (await ask(subject.backend, request)).json
    assert answer["object"] == "text_completion"
    assert isinstance(answer["choices"][0]["text"], str)
    assert json.dumps(answer["usage"])
