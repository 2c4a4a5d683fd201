import json
from typing import Any

import pytest

from deployments.errors import InvalidRequest
from deployments.huggingface.protocol.request import ChatRequest, CompletionRequest, parse

TURNS = [{"role": "user", "content": "hi"}]


def chat(**body: Any) -> ChatRequest:
    return parse(ChatRequest, json.dumps({"model": "m", "messages": TURNS} | body).encode())


def refusal(**body: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        chat(**body)
    return refused.value


@pytest.mark.parametrize(
    ("field", "value", "param", "code"),
    [
        ("temperature", "0.5", "temperature", "invalid_type"),
        ("temperature", True, "temperature", "invalid_type"),
        ("temperature", 2.1, "temperature", "invalid_value"),
        ("n", 1.5, "n", "invalid_type"),
        ("n", 129, "n", "invalid_value"),
        ("max_tokens", 0, "max_tokens", "invalid_value"),
        ("seed", 2**63, "seed", "invalid_value"),
        ("stop", ["a"] * 17, "stop", "invalid_value"),
        ("stop", [""], "stop[0]", "invalid_value"),
        ("stop", 3, "stop", "invalid_type"),
        ("logit_bias", {"3": 101}, "logit_bias.3", "invalid_value"),
        ("top_logprobs", 2, "top_logprobs", "invalid_value"),
        ("stream_options", {"include_usage": True}, "stream_options", "invalid_value"),
        ("stream_options", {"usage": True}, "stream_options.usage", "unknown_parameter"),
        ("temprature", 1, "temprature", "unknown_parameter"),
        ("tools", [{"type": "function"}], "tools[0].function", "missing_required_parameter"),
        ("functions", [{"name": "f"}], "functions", "unsupported_parameter"),
        ("response_format", {"type": "yaml"}, "response_format.type", "invalid_value"),
        ("response_format", {"type": "json_schema"}, "response_format", "invalid_value"),
        ("response_format", {"type": "text", "x": 1}, "response_format.x", "unknown_parameter"),
        ("messages", [], "messages", "invalid_value"),
        ("messages", "hi", "messages", "invalid_type"),
        ("messages", ["hi"], "messages[0]", "invalid_type"),
        ("messages", [{"content": "x"}], "messages[0].role", "missing_required_parameter"),
        ("messages", [{"role": "robot"}], "messages[0].role", "invalid_value"),
        ("messages", [{"role": "tool"}], "messages[0]", "invalid_value"),
        ("messages", [{"role": "user", "content": 3}], "messages[0].content", "invalid_type"),
        ("messages", [{"role": "user", "x": 3}], "messages[0].x", "unknown_parameter"),
    ],
)
def test_wrong_fields_are_named(field: str, value: object, param: str, code: str) -> None:
    """A field of the wrong type, value or name is refused by name; nothing is coerced."""
    error = refusal(**{field: value})
    assert (error.status, error.param, error.code) == (400, param, code)
    assert param in error.message


@pytest.mark.parametrize(
    ("wrong", "param", "code"),
    [
        ({"name": "a b"}, "name", "invalid_value"),
        ({"name": "n" * 65}, "name", "invalid_value"),
        ({"name": None}, "name", "invalid_type"),
        ({"schema": "{}"}, "schema", "invalid_type"),
        ({"strict": 1}, "strict", "invalid_type"),
        ({"shema": {}}, "shema", "unknown_parameter"),
    ],
)
def test_a_json_schema_has_openais_form(wrong: dict[str, Any], param: str, code: str) -> None:
    """Name, schema and strict of a json_schema are each checked, and nothing else may be there."""
    form = {"name": "n", "schema": {"type": "object"}, "strict": True}
    chat(response_format={"type": "json_schema", "json_schema": form})
    error = refusal(response_format={"type": "json_schema", "json_schema": form | wrong})
    assert (error.param, error.code) == (f"response_format.json_schema.{param}", code)


@pytest.mark.parametrize(
    "part", [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "input_audio"}]
)
def test_parts_other_than_text_are_refused(part: dict[str, Any]) -> None:
    """Images and audio are not dropped silently."""
    error = refusal(messages=[{"role": "user", "content": [part]}])
    assert (error.param, error.code) == ("messages[0].content", "unsupported_parameter")


def test_missing_fields_are_named() -> None:
    """A body without its required field says which."""
    with pytest.raises(InvalidRequest, match="'prompt'") as refused:
        parse(CompletionRequest, b"{}")
    assert refused.value.code == "missing_required_parameter"


def test_no_long_value_is_repeated() -> None:
    """What a client sent comes back in part at most."""
    long = "x" * 5000
    wrong: list[dict[str, Any]] = [{long: 1}, {"response_format": {"type": long}}, {"n": long}]
    for body in [*wrong, {"logit_bias": {long: "x"}}, {"messages": [{"role": long}]}]:
        error = refusal(**body)
        assert len(error.message) < 600
        assert len(error.param or "") <= 200


def test_harmless_fields_pass() -> None:
    """Fields that change nothing here, nulls, and empty forms of what is not there are taken."""
    request = chat(
        user="u",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        parallel_tool_calls=True,
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        modalities=["text"],
        temperature=None,
        stop=None,
        logprobs=False,
    )
    assert request.temperature is None


def test_a_whole_number_is_a_number() -> None:
    """1 is a fine temperature."""
    assert chat(temperature=1).temperature == 1.0


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2]], [[1], [2]])],
)
def test_the_forms_of_a_prompt(prompt: object, expected: list[object]) -> None:
    """Each of OpenAI's four forms of a prompt is read."""
    request = parse(CompletionRequest, json.dumps({"prompt": prompt}).encode())
    assert request.prompt == expected


@pytest.mark.parametrize("prompt", [None, 3, [], [[]], [True], ["a", 1], [1.5], {"a": 1}])
def test_other_prompts_are_refused(prompt: object) -> None:
    """Anything else is refused, mixed lists and empty ones included."""
    with pytest.raises(InvalidRequest) as refused:
        parse(CompletionRequest, json.dumps({"prompt": prompt}).encode())
    assert refused.value.param == "prompt"


def test_what_cannot_be_combined() -> None:
    """best_of beyond n, and no tokens without echo, are refused by name."""
    for body, param in (({"max_tokens": 0}, "max_tokens"), ({"best_of": 2}, "best_of")):
        with pytest.raises(InvalidRequest) as refused:
            parse(CompletionRequest, json.dumps({"prompt": "a"} | body).encode())
        assert refused.value.param == param
