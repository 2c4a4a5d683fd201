"""`response_format`, asked of the whole backend."""

import asyncio
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openai._models import validate_type
from openai.types.chat import ChatCompletion

from deployments.errors import InvalidRequest
from deployments.huggingface.backend import HuggingFaceBackend

from .asking import CHAT, COMPLETIONS, ask, started

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "tags": {"type": "array", "items": {"enum": ["a"]}}},
    "required": ["ok", "tags"],
    "additionalProperties": False,
}
JSON_OBJECT = {"type": "json_object"}


def json_schema(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **more}}


async def test_choices_follow_the_schema(random_backend: HuggingFaceBackend) -> None:
    """Each of n choices of a model of noise is JSON under the schema, repeatable by its seed, with
    log probabilities and penalties as ever."""
    asked = {"response_format": json_schema(SCHEMA, strict=True), "n": 5, "seed": 4}
    extras = {"logprobs": True, "top_logprobs": 2, "presence_penalty": 0.5, "max_tokens": 200}
    got = await ask(random_backend, CHAT, **asked, **extras)
    validate_type(type_=ChatCompletion, value=got.body)
    texts = [choice["message"]["content"] for choice in got.body["choices"]]
    ends = [choice["finish_reason"] for choice in got.body["choices"]]
    assert ends.count("stop") >= 3
    for text, end in zip(texts, ends, strict=True):
        if end == "stop":
            jsonschema.validate(json.loads(text), SCHEMA)
    again = await ask(random_backend, CHAT, **asked, **extras)
    assert [choice["message"]["content"] for choice in again.body["choices"]] == texts
    assert len(set(texts)) > 1


async def test_streams_and_completions_follow_too(random_backend: HuggingFaceBackend) -> None:
    """A stream's pieces make the same JSON, and completions take the field as chats do."""
    asked = {"response_format": json_schema(SCHEMA), "seed": 1, "max_tokens": 200}
    whole = await ask(random_backend, CHAT, **asked)
    streamed = await ask(random_backend, CHAT, **asked, stream=True)
    pieces = [event["choices"][0]["delta"].get("content", "") for event in streamed.events]
    assert "".join(pieces) == whole.body["choices"][0]["message"]["content"]
    completed = await ask(random_backend, COMPLETIONS, prompt="x", **asked)
    jsonschema.validate(json.loads(completed.body["choices"][0]["text"]), SCHEMA)


async def test_any_object_will_do(random_backend: HuggingFaceBackend) -> None:
    """json_object is an object, whatever is in it."""
    got = await ask(random_backend, CHAT, response_format=JSON_OBJECT, logit_bias={ord("}"): 100})
    assert isinstance(json.loads(got.body["choices"][0]["message"]["content"]), dict)


async def test_a_wrong_schema_is_the_clients_to_change(random_backend: HuggingFaceBackend) -> None:
    """A schema that cannot be enforced is a 400 that names the field; requests beside it are
    answered as if it had never come."""
    plain = {"temperature": 0, "max_tokens": 30}
    expected = (await ask(random_backend, CHAT, **plain)).body["choices"]
    wrong = ask(random_backend, CHAT, response_format=json_schema({"type": "strin"}))
    refused, *others = await asyncio.gather(
        wrong, *(ask(random_backend, CHAT, **plain) for _ in range(3)), return_exceptions=True
    )
    assert isinstance(refused, InvalidRequest)
    assert (refused.status, refused.param) == (400, "response_format")
    assert [other.body["choices"] for other in others] == [expected] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_plain_text_is_no_format(random_backend: HuggingFaceBackend, path: str) -> None:
    """The type `text` changes nothing."""
    asked = {"temperature": 0, "max_tokens": 9} | ({"prompt": "a"} if path == COMPLETIONS else {})
    formatted = await ask(random_backend, path, **asked, response_format={"type": "text"})
    assert formatted.body["choices"] == (await ask(random_backend, path, **asked)).body["choices"]


async def test_the_templates_stops_do_not_cut_json(reciter_checkpoint: Path) -> None:
    """A stop string of the model's operator ends plain answers; JSON it would cut in two it does
    not."""
    form = json_schema({"enum": ["a STOP b"]})
    async with started(reciter_checkpoint, stop=("STOP", "Hi")) as backend:
        assert (await ask(backend, CHAT, temperature=0)).body["choices"][0]["message"][
            "content"
        ] == ""
        got = await ask(backend, CHAT, temperature=0, response_format=form)
    assert got.body["choices"][0]["message"]["content"] == '"a STOP b"'
