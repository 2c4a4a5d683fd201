"""An entry of the catalogue on vLLM: its template and its stops, in a real engine."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from deployments import backends
from deployments.exchange import Backend, Exchange, Head

from .families import save_reciter, tokenizer
from .test_templates import SYSTEM, TURNS, render

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # the engine runs in this process
]

KEY = "falcon-40b-instruct"  # the one whose stop string is words, and whose stop ids are many
SAID = "Ok"
MESSAGES = [{"role": "system", "content": SYSTEM}, *TURNS]
ENGINE = {"kv_cache_memory_bytes": 2**26, "max_num_seqs": 4, "enforce_eager": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Backend]:
    """Says "Ok", falcon's stop string, and beyond one of falcon's stop tokens, which is not its own
    end token."""
    text = f"{SAID}\nUserXYZ<|im_start|>W"
    checkpoint = save_reciter(tmp_path_factory.mktemp(KEY), ":", text)
    args = {"model_type": KEY, "backend": "vllm", "dtype": "float32", "num_gpus": 0}
    config = backends.configure({**args, "checkpoint": str(checkpoint), "engine_options": ENGINE})
    backend = backends.build(KEY, config)
    await backend.start()
    yield backend
    await backend.stop()


async def ask(backend: Backend, path: str, **body: Any) -> list[Any]:
    """The answer's JSON objects: one, or the events of a stream."""
    body = {"model": KEY, "temperature": 0, "max_tokens": 30, **body}
    items = backend.exchange(Exchange(path, json.dumps(body).encode(), "r", KEY))
    got = [item async for item in items]
    assert isinstance(got[0], Head)
    assert got[0].status == 200
    text = b"".join(item for item in got if isinstance(item, bytes)).decode()
    if not body.get("stream"):
        return [json.loads(text)]
    events = [event.removeprefix("data: ") for event in text.strip().split("\n\n")]
    return [json.loads(event) for event in events if event != "[DONE]"]


async def test_template(backend: Backend) -> None:
    """The prompt is what the entry's template makes of the messages, not the checkpoint's."""
    (answer,) = await ask(backend, "/v1/chat/completions", messages=MESSAGES)
    prompt = tokenizer("</s>")(render(KEY, *MESSAGES), add_special_tokens=False)["input_ids"]
    assert answer["usage"]["prompt_tokens"] == len(prompt)


@pytest.mark.parametrize("own", [[], ["nothing"]])
async def test_stop_strings(backend: Backend, own: list[str]) -> None:
    """A chat ends at the entry's stop string, which is not shown, beside the client's own."""
    (answer,) = await ask(backend, "/v1/chat/completions", messages=MESSAGES, stop=own)
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (SAID, "stop")


async def test_stream(backend: Backend) -> None:
    """A stream shows no part of the stop string either."""
    chunks = await ask(backend, "/v1/chat/completions", messages=MESSAGES, stream=True)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == SAID


async def test_other_endpoints(backend: Backend) -> None:
    """An endpoint that knows no stop strings stops at them too: they are the template's."""
    body = {"input": [{"role": "user", "content": "Hi"}], "max_output_tokens": 30}
    (answer,) = await ask(backend, "/v1/responses", **body)
    assert answer["output"][0]["content"][0]["text"] == SAID


async def test_completions(backend: Backend) -> None:
    """A completion has no template: only the entry's stop tokens end it, and are not shown."""
    (answer,) = await ask(backend, "/v1/completions", prompt="Assistant:")
    choice = answer["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (f"{SAID}\nUserXYZ", "stop")


async def test_ignore_eos(backend: Backend) -> None:
    """A request that ignores the end of text ignores the entry's stops."""
    body = {"messages": MESSAGES, "ignore_eos": True, "max_tokens": 20}
    (answer,) = await ask(backend, "/v1/chat/completions", **body)
    assert answer["usage"]["completion_tokens"] == 20
