"""What the backends that generate tokens themselves promise, and that they agree."""

import asyncio
import json

import pytest

from deployments.errors import ContextTooLong, InvalidRequest, ModelNotFound
from tests.contract.asking import ask, exchange, saying
from tests.contract.subjects import ADAPTER, GENERATING, MODEL, Subject

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    # The engines run in this process: as an error, a warning of theirs would be a failed answer.
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.parametrize("subject", GENERATING, indirect=True),
]

ADAPTED: dict[str, str] = {}  # what the first backend said with the adapter
QUESTION = [{"role": "user", "content": "Count from 1 to 20."}]


async def test_length(subject: Subject) -> None:
    """max_completion_tokens ends the answer, with the reason `length`."""
    request = exchange({"messages": QUESTION, "max_completion_tokens": 4})
    answer = (await ask(subject.backend, request)).json
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 4


async def test_choices(subject: Subject) -> None:
    """n gives that many choices, each with its index, streamed or not."""
    fields = {"messages": QUESTION, "n": 3, "max_tokens": 5, "temperature": 1.0}
    whole = (await ask(subject.backend, exchange(fields))).json
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    streamed = await ask(subject.backend, exchange({**fields, "stream": True}))
    finished = [c["choices"][0] for c in streamed.chunks if c["choices"][0]["finish_reason"]]
    assert sorted(choice["index"] for choice in finished) == [0, 1, 2]


async def test_no_schema_takes_all_memory(subject: Subject) -> None:
    """A schema of a few bytes that would take the grammar's library gigabytes is refused."""
    schema = {"type": "array", "items": {"multipleOf": 3}, "minItems": 10**9}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    with pytest.raises(InvalidRequest, match="too much") as refused:
        await ask(subject.backend, exchange({"messages": QUESTION, "response_format": form}))
    assert refused.value.param == "response_format"


async def test_seed(subject: Subject) -> None:
    """The same seed gives the same text, whatever runs beside it; another seed another."""
    fields = {"messages": QUESTION, "temperature": 1.9, "max_tokens": 24}
    seeds = [7, 7, 8, 9]
    texts = [
        answered.text
        for answered in await asyncio.gather(
            *(ask(subject.backend, exchange({**fields, "seed": seed})) for seed in seeds)
        )
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


async def test_logprobs(subject: Subject) -> None:
    """Each token comes with its log probability and the likeliest alternatives."""
    request = saying(subject, "river", logprobs=True, top_logprobs=2)
    choice = (await ask(subject.backend, request)).json["choices"][0]
    content = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in content).startswith("river"[:1])
    assert all(len(token["top_logprobs"]) >= 2 for token in content)
    assert all(token["logprob"] <= 0 for token in content)


async def test_context_too_long(subject: Subject) -> None:
    """More tokens than the context holds is a clear error, with OpenAI's code."""
    with pytest.raises(ContextTooLong):
        await ask(subject.backend, saying(subject, "word " * 4000))
    with pytest.raises(ContextTooLong):
        await ask(subject.backend, saying(subject, "word", max_tokens=5000))


async def test_wrong_type(subject: Subject) -> None:
    """A wrong type is refused and named."""
    with pytest.raises(InvalidRequest) as refused:
        await ask(subject.backend, saying(subject, "word", min_p="much"))
    assert refused.value.param == "min_p"


async def test_json_schema(subject: Subject) -> None:
    """An answer under a JSON schema is valid under it, with a question that asks for no JSON."""
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}, "sure": {"type": "boolean"}},
        "required": ["colour", "sure"],
        "additionalProperties": False,
    }
    form = {"name": "answer", "schema": schema, "strict": True}
    asked = {"type": "json_schema", "json_schema": form}
    answered = await ask(subject.backend, saying(subject, "red", response_format=asked))
    assert answered.json["choices"][0]["finish_reason"] == "stop"
    answer = json.loads(answered.text)
    assert set(answer) == {"colour", "sure"}
    assert answer["colour"] in {"red", "green"}
    wrong = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "strin"}}}
    with pytest.raises(InvalidRequest):
        await ask(subject.backend, saying(subject, "red", response_format=wrong))


async def test_adapters(subject: Subject) -> None:
    """An adapter is a model of its own beside the base, in the same batch, and both backends give
    the same answer with it; one that is not there is not found."""
    fields = {"messages": QUESTION, "max_tokens": 24, "temperature": 0}
    asked = [MODEL, f"{MODEL}:{ADAPTER}"] * 2
    assert set(asked) == set(subject.backend.card().models)
    answers = await asyncio.gather(
        *(ask(subject.backend, exchange(fields, model=model)) for model in asked)
    )
    assert [answer.json["model"] for answer in answers] == asked
    base, adapted, *again = [answer.text for answer in answers]
    assert again == [base, adapted]
    assert base.startswith("1, 2, 3")
    assert adapted != base
    assert ADAPTED.setdefault("text", adapted) == adapted
    with pytest.raises(ModelNotFound):
        await ask(subject.backend, exchange(fields, model=f"{MODEL}:none"))


async def test_echo_with_logprobs(subject: Subject) -> None:
    """A completion that echoes its prompt gives each of the prompt's tokens a log probability; the
    first token has none."""
    fields = {"prompt": "What is the capital", "echo": True, "logprobs": 2, "max_tokens": 2}
    request = exchange({**fields, "temperature": 0}, path="/v1/completions")
    answer = (await ask(subject.backend, request)).json
    choice, count = answer["choices"][0], answer["usage"]["prompt_tokens"]
    logprobs = choice["logprobs"]
    assert choice["text"].startswith("What is the capital")
    assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
    assert len(logprobs["token_logprobs"]) >= count
    assert all(value <= 0 for value in logprobs["token_logprobs"][1:])
    assert logprobs["text_offset"][0] == 0
    assert "".join(logprobs["tokens"]).startswith("What is the capital")
