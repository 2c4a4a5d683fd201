"""Tools, asked of the whole backend: what a model says is what the client gets as calls."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openai._models import validate_type
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from deployments.errors import InvalidRequest
from deployments.huggingface.backend import HuggingFaceBackend
from deployments.huggingface.protocol.request import ChatRequest, parse
from deployments.huggingface.protocol.tools.pieces import Call

from ..asking import CHAT, Got, ask, started
from ..models import byte_tokenizer, save_random
from .speaking import (
    HERMES,
    LLAMA3,
    MISTRAL,
    hermes_call,
    save_noise,
    save_speaker,
    tokenizer,
    tool,
)

TOOLS = [tool("add", x={"type": "integer"}, y={"enum": ["one", "two"]}), tool("get")]
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "tools": TOOLS}
ARGUMENTS = {"x": 1, "y": "two"}
ARRAY = json.dumps([{"name": "add", "arguments": ARGUMENTS}, {"name": "get", "arguments": {}}])


async def say(folder: Path, answer: str, template: str, *special: str, **more: Any) -> list[Any]:
    """The choices, whole and put together from a stream by OpenAI's own code, of a model that says
    a text."""
    made = tokenizer(template, *special)
    async with started(save_speaker(folder, made, BODY, answer)) as backend:
        whole = await ask(backend, CHAT, **BODY, temperature=0, **more)
        streamed = await ask(backend, CHAT, **BODY, temperature=0, stream=True, **more)
    validate_type(type_=ChatCompletion, value=whole.body)
    return [whole.body["choices"][0], put_together(streamed)]


def put_together(streamed: Got) -> Any:
    """What OpenAI's client makes of a stream."""
    state = ChatCompletionStreamState()
    for event in streamed.events:
        validate_type(type_=ChatCompletionChunk, value=event)
        state.handle_chunk(ChatCompletionChunk.model_validate(event))
    choice = state.current_completion_snapshot.choices[0]
    return choice.to_dict()


def calls_of(choice: Any) -> list[tuple[str, Any]]:
    calls = choice["message"].get("tool_calls") or []
    assert len({call["id"] for call in calls}) == len(calls)
    assert all(call["type"] == "function" for call in calls)
    return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]


@pytest.mark.parametrize(
    ("template", "special", "answer", "expected"),
    [
        (HERMES, (), hermes_call("add", ARGUMENTS), [("add", ARGUMENTS)]),
        (HERMES, ("<tool_call>", "</tool_call>"), hermes_call("get", {}), [("get", {})]),
        (
            LLAMA3,
            ("<|python_tag|>",),
            '{"name": "get", "parameters": {"a": 1}}',
            [("get", {"a": 1})],
        ),
        (MISTRAL, ("[TOOL_CALLS]",), f"[TOOL_CALLS]{ARRAY}", [("add", ARGUMENTS), ("get", {})]),
        (
            MISTRAL,
            ("[TOOL_CALLS]", "[ARGS]"),
            '[TOOL_CALLS]add[ARGS]{"x": 1, "y": "two"}[TOOL_CALLS]get[ARGS]{}',
            [("add", ARGUMENTS), ("get", {})],
        ),
    ],
)
async def test_calls_come_in_openais_shape(
    tmp_path: Path, template: str, special: tuple[str, ...], answer: str, expected: list[Any]
) -> None:
    """Calls in the format of the model's template, whether its markers are special tokens or text,
    are tool_calls with an id each, whole or streamed, and the reason is `tool_calls`."""
    for choice in await say(tmp_path, answer, template, *special):
        assert calls_of(choice) == expected
        assert choice["finish_reason"] == "tool_calls"
        assert not choice["message"]["content"]
    if template == MISTRAL:
        assert all(len(c["id"]) == 9 for c in choice["message"]["tool_calls"])


async def test_text_beside_a_call_is_content(tmp_path: Path) -> None:
    """A model may say something before it calls."""
    for choice in await say(tmp_path, "I see.\n" + hermes_call("get", {}), HERMES):
        assert choice["message"]["content"] == "I see."
        assert calls_of(choice) == [("get", {})]


@pytest.mark.parametrize("answer", ["Hi there.\n", '<tool_call>{"name": "add"', "<tool_call> no"])
async def test_no_call_is_plain_text(tmp_path: Path, answer: str) -> None:
    """An answer without a well-formed call is its text, and the reason is `stop`."""
    for choice in await say(tmp_path, answer, HERMES):
        assert choice["message"]["content"] == answer
        assert (calls_of(choice), choice["finish_reason"]) == ([], "stop")


async def test_a_cut_call_ends_by_length(tmp_path: Path) -> None:
    """A call that max_tokens cuts is text in a whole answer; the reason stays `length`."""
    answer = hermes_call("add", ARGUMENTS)
    whole, streamed = await say(tmp_path, answer, HERMES, max_tokens=60)
    assert whole["message"]["content"] == answer[:60]
    assert whole["finish_reason"] == streamed["finish_reason"] == "length"


async def test_one_call_without_parallel_calls(tmp_path: Path) -> None:
    """parallel_tool_calls false gives the first call only."""
    answer = hermes_call("get", {}) + "\n" + hermes_call("add", ARGUMENTS)
    for choice in await say(tmp_path, answer, HERMES, parallel_tool_calls=False):
        assert calls_of(choice) == [("get", {})]


async def test_logprobs_beside_calls(tmp_path: Path) -> None:
    """Each token has its log probability, whole or streamed, also those that calls are made of."""
    answer = "Hm. " + hermes_call("get", {})
    for choice in await say(tmp_path, answer, HERMES, logprobs=True):
        content = choice["logprobs"]["content"]
        assert "".join(token["token"] for token in content) == answer


NOISE = {"hermes": HERMES, "llama3_json": LLAMA3, "mistral": MISTRAL}


@pytest.mark.parametrize("kind", NOISE)
async def test_required_calls_are_enforced(tmp_path: Path, kind: str) -> None:
    """With tool_choice required, or a function by name, even a model of noise calls a function of
    those allowed, and each argument is valid under the schema."""
    special = ("[TOOL_CALLS]",) if kind == "mistral" else ("<tool_call>", "</tool_call>")
    async with started(save_noise(tmp_path, tokenizer(NOISE[kind], *special))) as backend:
        named = {"type": "function", "function": {"name": "add"}}
        for choice in ("required", named):
            asked = {"tool_choice": choice, "seed": 1, "n": 4, "max_tokens": 500}
            got = await ask(backend, CHAT, **BODY, **asked, parallel_tool_calls=choice == named)
            check_calls(got.body, TOOLS[:1] if choice == named else TOOLS)


def check_calls(body: Any, allowed: list[Any]) -> None:
    validate_type(type_=ChatCompletion, value=body)
    schemas = {t["function"]["name"]: t["function"]["parameters"] for t in allowed}
    ended = [c for c in body["choices"] if c["finish_reason"] != "length"]
    assert ended
    for choice in ended:
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] is None
        assert calls_of(choice)
        for name, arguments in calls_of(choice):
            jsonschema.validate(arguments, schemas[name])


async def test_calls_or_a_format(tmp_path: Path) -> None:
    """With tools on offer and a response_format, an answer is calls or follows the format."""
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": [1, 2]}}}
    async with started(save_noise(tmp_path, tokenizer(HERMES))) as backend:
        got = await ask(backend, CHAT, **BODY, response_format=form, n=8, seed=2, max_tokens=400)
    contents = [choice["message"]["content"] for choice in got.body["choices"]]
    assert any(contents)
    assert {content for content in contents if content} <= {"1", "2"}


HUGE = tool("f", x={"type": "array", "minItems": 10**9})
FORM = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"maxItems": 10**9}}}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tool_choice": "required", "tools": None}, "tool_choice"),
    ({"tool_choice": "any"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {}}}, "tool_choice"),
    ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [tool("f") | {"x": 1}]}, "tools[0].x"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "a"}}}]},
        "tools[0].function.parameters",
    ),
    ({"tools": [tool("f", x={"type": "strin"})], "tool_choice": "required"}, "tools"),
    ({"tools": [HUGE], "tool_choice": "required"}, "tools"),
    ({"response_format": FORM}, "response_format"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {}}]}]},
        "messages[0].tool_calls[0].function.name",
    ),
]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"x": "\\ud800"}', '{"x": NaN}', "[]", "{"])
def test_arguments_that_nobody_could_take_on(text: str) -> None:
    """Arguments of an earlier call that are nested without end, hold half a character, or are no
    object are refused by name, and are no call when a model writes them."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": text}}
    body = BODY | {"messages": [{"role": "assistant", "tool_calls": [call]}]}
    with pytest.raises(InvalidRequest) as refused:
        parse(ChatRequest, json.dumps(body).encode())
    assert refused.value.param == "messages[0].tool_calls[0].function.arguments"
    assert not Call("f", text).well_formed


async def test_wrong_fields_are_named(tmp_path: Path) -> None:
    """Wrong tools, choices and calls are refused by name."""
    async with started(save_noise(tmp_path, tokenizer(HERMES))) as backend:
        for fields, param in WRONG:
            error = await refusal(backend, **(BODY | fields))
            assert (error.status, error.param) == (400, param)


async def test_calls_and_results_are_rendered(tmp_path: Path) -> None:
    """Earlier calls go into the template with their arguments as objects, and results with the id
    of their call and the name of its function; tools go in as they came, but not with tool_choice
    none."""
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"x": 7}'}}
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "8"},
    ]
    turns = "user:Hello; assistant:<call>add 7</call>; tool:8#c1 add; >"
    made = tokenizer(HERMES)
    listed = "".join(json.dumps(tool) for tool in TOOLS)
    async with started(save_noise(tmp_path, made)) as backend:
        for choice, expected in (("auto", listed + turns), ("none", turns)):
            asked = BODY | {"messages": messages, "tool_choice": choice, "max_tokens": 1}
            got = await ask(backend, CHAT, **asked)
            assert got.tail.prompt_tokens == len(expected)


CALLED = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


async def refusal(backend: HuggingFaceBackend, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        await ask(backend, CHAT, **fields)
    return refused.value


async def test_a_model_without_tools_says_so(tmp_path: Path) -> None:
    """Where the template does not render tools, or how the model calls them is not known, tools and
    calls are refused with the reason, and nothing is dropped."""
    async with started(save_random(tmp_path / "plain")) as backend:
        error = await refusal(backend, **BODY)
        assert (error.param, error.code) == ("tools", "unsupported_parameter")
        assert "template" in error.message
        called = [{"role": "assistant", "tool_calls": [CALLED]}]
        assert (await refusal(backend, messages=called)).param == "messages"
    unknown = tokenizer(HERMES.replace("<tool_call>", "<function=f>"))
    async with started(save_noise(tmp_path / "unknown", unknown)) as backend:
        assert "tool_call_parser" in (await refusal(backend, **BODY)).message


async def test_the_operator_may_name_the_parser(tmp_path: Path) -> None:
    """tool_call_parser overrules what the template looks like, and `none` switches tools off."""
    answer = hermes_call("get", {})
    folder = save_speaker(tmp_path, tokenizer(MISTRAL), BODY, answer)
    async with started(folder, tool_call_parser="hermes") as backend:
        got = await ask(backend, CHAT, **BODY, temperature=0)
        assert calls_of(got.body["choices"][0]) == [("get", {})]
    async with started(folder, tool_call_parser="none") as backend:
        assert (await refusal(backend, **BODY)).param == "tools"


def test_the_tests_tokenizer_has_room() -> None:
    """The byte tokenizer leaves ids for two more special tokens."""
    assert len(byte_tokenizer()) == 258
