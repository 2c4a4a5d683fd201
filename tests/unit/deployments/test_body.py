import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.body import MAX_ECHO_CHARS, parse_object, with_fields
from deployments.errors import InvalidRequest

NOT_STRICT = {
    "nothing": b"",
    "cut short": b'{"a": [1, 2',
    "not a number": b'{"a": NaN}',
    "an infinity": b'{"a": -Infinity}',
    "an infinity in disguise": b'{"a": [{"b": 1e999}]}',
    "an infinity in digits": b'{"a": ' + b"9" * 400 + b".0}",
    "5000 digits": b'{"a": ' + b"1" * 5000 + b"}",
    "a lone surrogate": rb'{"a": "\ud800"}',
    "surrogates in the wrong order": rb'{"a": "\ude00\ud83d"}',
    "a surrogate in UTF-8": b'{"a": "\xed\xa0\x80"}',
    "invalid UTF-8": b'{"a": "\xff"}',
    "a control character": b'{"a": "\x00"}',
    "a key twice": b'{"a": 1, "a": 1}',
    "a key twice, once escaped": rb'{"a": 1, "\u0061": 1}',
    "a key twice, deep inside": b'{"a": [{"b": 1, "b": 2}]}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "something after the end": b"{} {}",
    "a comma too many": b'{"a": 1,}',
    "a leading zero": b'{"a": 01}',
    "single quotes": b"{'a': 1}",
    "a comment": b'{"a": 1 /* one */}',
    "null": b"null",
    "an array": b"[]",
    "a string": b'"a"',
    "a number": b"1",
}
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(scalars, lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=8)
objects = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), values, max_size=5)


@pytest.mark.parametrize("body", NOT_STRICT.values(), ids=NOT_STRICT.keys())
def test_what_is_not_strict_json_is_refused(body: bytes) -> None:
    """What parsers disagree about reaches no backend."""
    with pytest.raises(InvalidRequest) as caught:
        parse_object(body)
    assert caught.value.status == 400


@pytest.mark.parametrize("depth", [201, 1000, 100_000])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_refused(depth: int, brackets: tuple[bytes, bytes]) -> None:
    """A body cannot exhaust a stack, however deep it nests."""
    opening, closing = brackets
    with pytest.raises(InvalidRequest):
        parse_object(b'{"a":' + opening * depth + b"1" + closing * depth + b"}")


def test_a_refusal_quotes_little() -> None:
    """However long the offending key is, the message is short."""
    key = b'"' + b"k" * 1_000_000 + b'"'
    with pytest.raises(InvalidRequest) as caught:
        parse_object(b"{" + key + b":1," + key + b":2}")
    assert len(caught.value.message) <= MAX_ECHO_CHARS + 60


@given(objects)
def test_json_is_read_as_it_is(value: dict[str, Any]) -> None:
    """What is strict JSON is read as Python's own parser reads it."""
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    try:
        expected = json.loads(body)
    except ValueError:
        return
    assert parse_object(body) == expected


@given(
    st.binary(max_size=60) | st.text('{}[]":,eE+-.019truefalsn\\ud8 ', max_size=40).map(str.encode)
)
def test_rewriting_never_fails_on_what_was_read(body: bytes) -> None:
    """The reader and the rewriter agree on what JSON is."""
    try:
        parse_object(body)
    except InvalidRequest:
        return
    assert parse_object(with_fields(body, model="m"))["model"] == "m"


def test_only_what_was_asked_for_changes() -> None:
    """Numbers, escapes and spaces inside other values stay byte for byte; order is kept."""
    body = rb'{"a": 1.50e+00, "model":"old" , "b":[1,  "\u00e9\/"], "c":12345678901234567890123}'
    expected = rb'{"a":1.50e+00,"model":"new","b":[1,  "\u00e9\/"],"c":12345678901234567890123}'
    assert with_fields(body, model="new") == expected


@given(objects)
def test_every_other_value_keeps_its_bytes(value: dict[str, Any]) -> None:
    """Whatever stands in a body, setting one field leaves the bytes of the others."""
    before = {name: json.dumps(v, indent=1).encode() for name, v in value.items()}
    members = [json.dumps(name).encode() + b" : " + text for name, text in before.items()]
    after = msgspec.json.decode(
        with_fields(b"{" + b", ".join(members) + b"}", model="m"), type=dict[str, msgspec.Raw]
    )
    assert {name: bytes(raw) for name, raw in after.items()} == {**before, "model": b'"m"'}


def test_fields_are_dropped() -> None:
    """A dropped field is gone, and one that is not there is no matter."""
    assert with_fields(b'{"a":1,"b":2}', drop=("a", "z"), c=None) == b'{"b":2,"c":null}'
