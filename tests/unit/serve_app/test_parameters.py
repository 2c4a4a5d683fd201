from typing import Any

import pytest

from deployments.errors import InvalidRequest
from serve_app.parameters import check_fields, model_from_body

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO = [{"role": "user", "content": "hi"}]

GOOD: list[dict[str, Any]] = [
    {},
    {"temperature": 0, "top_p": 1, "n": 1, "seed": -(2**63)},
    {"temperature": 2.0, "n": 128, "max_tokens": 1, "presence_penalty": -2},
    {"temperature": None, "stop": None, "tools": None, "n": None, "stream_options": None},
    {"stop": "x"},
    {"stop": ["x"] * 16},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"logprobs": True, "top_logprobs": 20},
    {"logprobs": False, "top_logprobs": 0},
    {"logit_bias": {"50256": -100, "1": 0.5}},
    {"tools": [{"type": "function"}] * 128, "tool_choice": "auto"},
    {"tool_choice": {"type": "function"}, "parallel_tool_calls": False},
    {"response_format": {"type": "json_object"}, "user": "u", "metadata": {"a": "b"}},
    {"guided_json": {}, "anything": [1]},
    {"messages": [{"role": "assistant"}, {"role": "tool", "content": "1"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
]

# Field, value, then the `param` and `code` that the client is told.
BAD: list[tuple[str, Any, str, str]] = [
    ("temperature", 3, "temperature", "decimal_above_max_value"),
    ("temperature", -0.01, "temperature", "decimal_below_min_value"),
    ("temperature", "0.5", "temperature", "invalid_type"),
    ("temperature", True, "temperature", "invalid_type"),
    ("top_p", 1.1, "top_p", "decimal_above_max_value"),
    ("top_p", -1, "top_p", "decimal_below_min_value"),
    ("n", 0, "n", "integer_below_min_value"),
    ("n", -1, "n", "integer_below_min_value"),
    ("n", 129, "n", "integer_above_max_value"),
    ("n", 2**31, "n", "integer_above_max_value"),
    ("n", 10**400, "n", "integer_above_max_value"),
    ("n", 1.0, "n", "invalid_type"),
    ("n", True, "n", "invalid_type"),
    ("max_tokens", 0, "max_tokens", "integer_below_min_value"),
    ("max_tokens", -1, "max_tokens", "integer_below_min_value"),
    ("max_tokens", 2**63, "max_tokens", "integer_above_max_value"),
    ("max_completion_tokens", 0, "max_completion_tokens", "integer_below_min_value"),
    ("max_completion_tokens", "9", "max_completion_tokens", "invalid_type"),
    ("presence_penalty", 2.1, "presence_penalty", "decimal_above_max_value"),
    ("frequency_penalty", -2.1, "frequency_penalty", "decimal_below_min_value"),
    ("seed", 2**64, "seed", "integer_above_max_value"),
    ("seed", 1.5, "seed", "invalid_type"),
    ("stop", ["x"] * 17, "stop", "array_above_max_length"),
    ("stop", "", "stop", "invalid_value"),
    ("stop", ["a", ""], "stop", "invalid_value"),
    ("stop", [1], "stop", "invalid_type"),
    ("stop", {}, "stop", "invalid_type"),
    ("stream", "yes", "stream", "invalid_type"),
    ("stream", 1, "stream", "invalid_type"),
    ("stream_options", {"include_usage": True}, "stream_options", "invalid_value"),
    ("stream_options", [], "stream_options", "invalid_type"),
    ("stream_options", {"include_usage": 1}, "stream_options.include_usage", "invalid_type"),
    ("logprobs", 5, "logprobs", "invalid_type"),
    ("top_logprobs", 21, "top_logprobs", "integer_above_max_value"),
    ("top_logprobs", -1, "top_logprobs", "integer_below_min_value"),
    ("top_logprobs", 2, "top_logprobs", "invalid_value"),
    ("logit_bias", [], "logit_bias", "invalid_type"),
    ("logit_bias", {"abc": 1}, "logit_bias", "invalid_value"),
    ("logit_bias", {"-1": 1}, "logit_bias", "invalid_value"),
    ("logit_bias", {"1": 101}, "logit_bias", "decimal_above_max_value"),
    ("logit_bias", {"1": "x"}, "logit_bias", "invalid_type"),
    ("tools", {}, "tools", "invalid_type"),
    ("tools", ["x"], "tools[0]", "invalid_type"),
    ("tools", [{}] * 129, "tools", "array_above_max_length"),
    ("tool_choice", 1, "tool_choice", "invalid_type"),
    ("parallel_tool_calls", "no", "parallel_tool_calls", "invalid_type"),
    ("response_format", "json", "response_format", "invalid_type"),
    ("metadata", "x", "metadata", "invalid_type"),
    ("user", 5, "user", "invalid_type"),
    ("prompt_embeds", "AAAA", "prompt_embeds", "unknown_parameter"),
    ("prompt_embeds", None, "prompt_embeds", "unknown_parameter"),
    ("chat_template", "{{ 7*7 }}", "chat_template", "unknown_parameter"),
    ("kv_transfer_params", {}, "kv_transfer_params", "unknown_parameter"),
    ("messages", None, "messages", "missing_required_parameter"),
    ("messages", [], "messages", "empty_array"),
    ("messages", "hi", "messages", "invalid_type"),
    ("messages", {}, "messages", "invalid_type"),
    ("messages", ["hi"], "messages[0]", "invalid_type"),
    ("messages", [None], "messages[0]", "invalid_type"),
    ("messages", [*HELLO, {}], "messages[1].role", "missing_required_parameter"),
    ("messages", [{"role": 1}], "messages[0].role", "invalid_type"),
    ("messages", [{"role": "User"}], "messages[0].role", "invalid_value"),
    ("messages", [{"role": "user"}], "messages[0].content", "missing_required_parameter"),
    (
        "messages",
        [{"role": "user", "content": None}],
        "messages[0].content",
        "missing_required_parameter",
    ),
    ("messages", [{"role": "tool"}], "messages[0].content", "missing_required_parameter"),
    ("messages", [{"role": "user", "content": 5}], "messages[0].content", "invalid_type"),
    ("messages", [{"role": "user", "content": {}}], "messages[0].content", "invalid_type"),
    ("messages", [{"role": "user", "content": []}], "messages[0].content", "empty_array"),
    ("messages", [{"role": "user", "content": ["a"]}], "messages[0].content[0]", "invalid_type"),
    (
        "messages",
        [{"role": "user", "content": [{"text": "a"}]}],
        "messages[0].content[0].type",
        "missing_required_parameter",
    ),
]

BAD_COMPLETIONS: list[tuple[str, Any, str, str]] = [
    ("prompt", None, "prompt", "missing_required_parameter"),
    ("prompt", {}, "prompt", "invalid_type"),
    ("prompt", 5, "prompt", "invalid_type"),
    ("prompt", [], "prompt", "empty_array"),
    ("logprobs", True, "logprobs", "invalid_type"),
    ("logprobs", 21, "logprobs", "integer_above_max_value"),
    ("best_of", 0, "best_of", "integer_below_min_value"),
    ("best_of", 10**9, "best_of", "integer_above_max_value"),
    ("echo", "yes", "echo", "invalid_type"),
    ("suffix", 1, "suffix", "invalid_type"),
    ("max_tokens", -1, "max_tokens", "integer_below_min_value"),
]


@pytest.mark.parametrize("fields", GOOD)
def test_what_openai_takes_is_taken(fields: dict[str, Any]) -> None:
    """Values at their limits, nulls, and fields that are a backend's own pass."""
    check_fields(CHAT, {"model": "m", "messages": HELLO, **fields})


@pytest.mark.parametrize(("field", "value", "param", "code"), BAD)
def test_what_no_backend_could_answer(field: str, value: Any, param: str, code: str) -> None:
    """A wrong type or range names the field, in OpenAI's code."""
    with pytest.raises(InvalidRequest) as caught:
        check_fields(CHAT, {"model": "m", "messages": HELLO, field: value})
    assert (caught.value.param, caught.value.code) == (param, code)
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(("field", "value", "param", "code"), BAD_COMPLETIONS)
def test_completions_have_their_own_fields(field: str, value: Any, param: str, code: str) -> None:
    """The same names mean other things where OpenAI meant other things."""
    with pytest.raises(InvalidRequest) as caught:
        check_fields(COMPLETIONS, {"model": "m", "prompt": "hi", field: value})
    assert (caught.value.param, caught.value.code) == (param, code)


def test_completions_may_be_asked_for_nothing() -> None:
    """With echo and max_tokens 0 a prompt is scored; a prompt may be tokens."""
    check_fields(COMPLETIONS, {"prompt": [1, 2], "max_tokens": 0, "echo": True, "logprobs": 20})


def test_other_endpoints_are_the_backends_business() -> None:
    """Of an endpoint that is not known here, only what streaming means is checked."""
    check_fields("/v1/embeddings", {"model": "m", "n": "many", "messages": 5})
    with pytest.raises(InvalidRequest) as caught:
        check_fields("/v1/responses", {"model": "m", "stream": "yes"})
    assert caught.value.param == "stream"


def test_a_quoted_value_is_cut() -> None:
    """Of a value that is quoted, 200 characters at most."""
    role = "r" * 1_000_000
    with pytest.raises(InvalidRequest) as caught:
        check_fields(CHAT, {"messages": [{"role": role, "content": "x"}]})
    assert "r" * 200 in caught.value.message
    assert "r" * 201 not in caught.value.message


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "model", "missing_required_parameter"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"model": 5}, "model", "invalid_type"),
        ({"model": ["demo"]}, "model", "invalid_type"),
        ({"model_type": {}}, "model_type", "invalid_type"),
        ({"model": "a", "model_type": "b"}, "model_type", "invalid_value"),
    ],
)
def test_a_model_must_be_named(body: dict[str, Any], param: str, code: str) -> None:
    """Nothing, nothing that is a name, or two names: refused."""
    with pytest.raises(InvalidRequest) as caught:
        model_from_body(body)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_either_field_names_the_model() -> None:
    """`model`, `model_type`, or both where they agree."""
    bodies = ({"model": "m"}, {"model_type": "m"}, {"model": "m", "model_type": "m"})
    assert [model_from_body(body) for body in bodies] == ["m", "m", "m"]
