"""Reading tool calls: whatever the model writes, and however it is cut into pieces."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.huggingface.protocol.tools.dialects import Hermes, Llama3Json, Mistral
from deployments.huggingface.protocol.tools.pieces import (
    Arguments,
    Begin,
    Content,
    End,
    Parts,
    collect,
)
from deployments.huggingface.protocol.tools.reader import Reader

NAMES = frozenset({"add", "get"})
HERMES, LLAMA, MISTRAL = Hermes.reader, Llama3Json.reader, Mistral.reader
ADD = '{"name": "add", "arguments": {"x": "}]\\"{", "y": [1, {}]}}'
ARGS = '{"x": "}]\\"{", "y": [1, {}]}'


def parts_of(kind: type[Reader], pieces: list[str], **options: Any) -> Parts:
    reader = kind(NAMES, **options)
    found = [piece for text in pieces for piece in reader.feed(text)]
    return collect(found + reader.finish())


def read(kind: type[Reader], text: str, **options: Any) -> tuple[str, list[tuple[str, str]]]:
    """What an answer is, whole; by single characters it must be the same."""
    parts = parts_of(kind, [text], **options)
    assert parts_of(kind, list(text), **options) == parts
    return parts.text, [(call.name, call.arguments) for call in parts.calls]


@pytest.mark.parametrize(
    ("kind", "text", "content", "calls"),
    [
        (HERMES, f"<tool_call>\n{ADD}\n</tool_call>", "", [("add", ARGS)]),
        (HERMES, f"Well.\n<tool_call>{ADD}</tool_call>\n", "Well.", [("add", ARGS)]),
        (HERMES, f"<tool_call>{ADD}</tool_call>\n" * 2, "", [("add", ARGS)] * 2),
        (HERMES, f"a <tool_call>{ADD}</tool_call> b", "a b", [("add", ARGS)]),
        (HERMES, f"<tool_call>\n{ADD}", "", [("add", ARGS)]),  # the end token came early
        (HERMES, f"<tool_call>\n{ADD}\n</tool", "", [("add", ARGS)]),
        (HERMES, '<tool_call>{"arguments": {}, "name": "f"}</tool_call>', "", [("f", "{}")]),
        (
            HERMES,
            '<tool_call>{"id": 7, "n": null, "name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
            "",
            [("f", '{"a": 1}')],
        ),
        (LLAMA, '{"name": "get", "parameters": {"a": 1}}', "", [("get", '{"a": 1}')]),
        (LLAMA, f" <|python_tag|>{ADD} ; {ADD}\n", "", [("add", ARGS)] * 2),
        (MISTRAL, f"[TOOL_CALLS][{ADD}, {ADD}]", "", [("add", ARGS)] * 2),
        (MISTRAL, f"[TOOL_CALLS] [{ADD}", "", [("add", ARGS)]),
        (MISTRAL, '[TOOL_CALLS]get[ARGS]{"a": 1}', "", [("get", '{"a": 1}')]),
        (
            MISTRAL,
            '[TOOL_CALLS]get[CALL_ID]x1[ARGS] {}[TOOL_CALLS]add{"a": {}}',
            "",
            [("get", "{}"), ("add", '{"a": {}}')],
        ),
        (MISTRAL, f"Yes. [TOOL_CALLS][{ADD}]", "Yes.", [("add", ARGS)]),
    ],
)
def test_calls_are_read(
    kind: type[Reader], text: str, content: str, calls: list[tuple[str, str]]
) -> None:
    """Calls are read in the forms that models write, whole or by the character, with the arguments
    as they were written; text around them is content."""
    assert read(kind, text) == (content, calls)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (HERMES, "No call at all.\n"),
        (HERMES, "<tool_cal"),
        (HERMES, "<tool_call>"),
        (HERMES, '<tool_call>{"name": "add"}</tool_call>'),
        (HERMES, '<tool_call>{"name": 3, "arguments": {}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "", "arguments": {}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "arguments": [1]}</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "arguments": {"a": 1</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "arguments": {"a": nope}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "arguments": {}} trailing </tool_call>'),
        (HERMES, "<tool_call>add(1)</tool_call> and <tool_call>"),
        (LLAMA, "It is {not} a call."),
        (LLAMA, '{"name": "nobody", "parameters": {}}'),
        (LLAMA, '{"answer": 42}'),
        (LLAMA, '  {"name": "get"'),
        (LLAMA, "<|python_tag|>brave.call(1)"),
        (MISTRAL, "[TOOL_CALLS]"),
        (MISTRAL, "[TOOL_CALLS][]"),
        (MISTRAL, "[TOOL_CALLS][1, 2]"),
        (MISTRAL, "[TOOL_CALLS] get nothing"),
    ],
)
def test_what_is_no_call_is_content(kind: type[Reader], text: str) -> None:
    """Malformed or cut calls, and text that only looks like one, come back as they were written."""
    assert read(kind, text) == (text, [])


def test_one_bad_call_spoils_no_other() -> None:
    """A malformed call between two good ones is content; those are calls."""
    good, bad = f"<tool_call>{ADD}</tool_call>", "<tool_call>{bad}</tool_call>"
    assert read(HERMES, good + bad + good) == (bad, [("add", ARGS)] * 2)


def test_no_more_calls_than_allowed() -> None:
    """With parallel calls switched off only the first is given."""
    text = f"<tool_call>{ADD}</tool_call>" * 3
    assert read(HERMES, text, max_calls=1) == ("", [("add", ARGS)])
    assert read(MISTRAL, f"[TOOL_CALLS][{ADD}, {ADD}]", max_calls=1) == ("", [("add", ARGS)])


def test_arguments_come_as_they_are_written() -> None:
    """A stream has the name as soon as it is known, and each piece of the arguments at once;
    content is held back only where it may begin a call."""
    reader = HERMES(NAMES)
    assert reader.feed("Hm <") == [Content("Hm")]
    assert reader.feed("b> <tool") == [Content(" <b>")]
    assert reader.feed('_call>{"name": "a') == []
    assert reader.feed('dd", "arguments": ') == []
    assert reader.feed('{"x":') == [Begin("add"), Arguments('{"x":')]
    assert reader.feed(" [1, 2") == [Arguments(" [1, 2")]
    assert reader.feed("]}}</tool_call>")[0] == Arguments("]}")
    assert reader.finish() == []


def test_a_call_that_breaks_in_a_stream_loses_no_text() -> None:
    """What follows the arguments of a call that turns out to be malformed is not lost."""
    reader = HERMES(NAMES)
    text = '<tool_call>{"name": "add", "arguments": {"x": 1}, "more": 3, oops'
    begin, arguments, end, content = reader.feed(text) + reader.finish()
    assert (begin, arguments) == (Begin("add"), Arguments('{"x": 1}'))
    assert isinstance(end, End)
    assert end.rest == ', "more": 3, '
    assert content == Content("oops")


SIGNS = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "<tool"]
JSON = ['"name": "add"', '"arguments": {', '"parameters": {"a": 1}', ADD, *'{}[]":, \n\\1']
FRAGMENTS = st.sampled_from([*SIGNS, *JSON, "text", ";"])


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from([HERMES, LLAMA, MISTRAL]), fragments=st.lists(FRAGMENTS, max_size=14))
def test_nothing_is_lost(kind: type[Reader], fragments: list[str]) -> None:
    """Whatever a model writes, reading it never fails; in pieces it is what it is whole; calls are
    JSON objects; and every word is in a call or in the content."""
    text = "".join(fragments)
    parts = parts_of(kind, [text])
    assert parts_of(kind, fragments) == parts
    assert all(isinstance(json.loads(call.arguments), dict) for call in parts.calls)
    if not parts.calls:
        assert parts.text.strip() == text.strip()
    told = parts.text + "".join(call.name + call.arguments for call in parts.calls)
    assert told.count("text") == text.count("text")
