"""Answers that must follow a grammar: what they are, and that nobody else notices."""

import json
import threading
from functools import cache
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.errors import InvalidRequest, RoundhouseError
from deployments.huggingface.engine import grammar as grammars
from deployments.huggingface.engine.blanks import MAX_BLANKS
from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.engine.generation import Choice, Sampling, Stopping
from deployments.huggingface.engine.grammar import Grammars, json_source
from deployments.huggingface.engine.masking import masked
from deployments.huggingface.engine.penalties import adjusted
from deployments.huggingface.engine.sampling import Sampled, sample
from deployments.huggingface.engine.sequence import Sequence

from .architectures import random_model
from .models import EOS, VOCAB_SIZE
from .scheduling import VOCABULARY, Asked, Collected, Event, generated, run

GRAMMARS = Grammars(VOCABULARY, VOCAB_SIZE, frozenset({EOS}))
OBJECT = {"type": "object"}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "pets": {"type": "array", "items": {"$ref": "#/$defs/pet"}, "maxItems": 2},
    },
    "required": ["name", "age", "pets"],
    "additionalProperties": False,
    "$defs": {"pet": {"enum": ["cat", "dog", None, 3]}},
}
CHOICE = {"anyOf": [{"type": "boolean"}, {"const": "\u00e9\u00e8"}, {"type": "number"}]}
NESTED = {
    "type": "object",
    "properties": {"a": {"type": "object", "properties": {"b": CHOICE}, "required": ["b"]}},
    "required": ["a"],
}
SCHEMAS = [PERSON, CHOICE, NESTED, OBJECT, {"type": "array", "items": CHOICE, "minItems": 1}]
PROMPTS = tuple(tuple(range(n, n + 3 + n)) for n in (3, 20, 60))
MAX_TOKENS = 60


def compiled(schema: dict[str, Any]) -> grammars.Grammar:
    return GRAMMARS.compile(json_source(schema, "response_format"))


@cache
def model() -> Any:
    return random_model("llama")


@cache
def greedy(prompt: tuple[int, ...]) -> list[int]:
    return generated(model(), prompt, MAX_TOKENS)


def asked() -> st.SearchStrategy[Event]:
    """Somebody asks for JSON, or for no more than text, in company."""
    prompts, seeds = st.sampled_from(PROMPTS), st.integers(0, 99)
    plain = st.builds(lambda at, prompt: Event(at, Asked(prompt, MAX_TOKENS)), DELAYS, prompts)
    constrained = st.builds(
        lambda at, prompt, schema, sampling: Event(at, Constrained(prompt, schema, sampling)),
        DELAYS,
        prompts,
        st.sampled_from(SCHEMAS),
        st.builds(
            Sampling,
            temperature=st.sampled_from((0, 0.7, 1.5)),
            top_p=st.sampled_from((1.0, 0.5)),
            seed=seeds,
            frequency_penalty=st.sampled_from((0, 1.0)),
            num_logprobs=st.sampled_from((None, 3)),
        ),
    )
    return plain | constrained


DELAYS = st.integers(0, 12)


class Constrained(Asked):
    """A sequence that must be JSON under a schema."""

    def __init__(self, prompt: tuple[int, ...], schema: dict[str, Any], sampling: Sampling) -> None:
        super().__init__(prompt, MAX_TOKENS, sampling, compiled(schema))
        self.schema = schema


def check(sequence: Asked) -> None:
    last = sequence.sink.deltas[-1]
    if not isinstance(sequence, Constrained):
        assert sequence.answer == greedy(sequence.prompt)
    elif last.finish_reason == "stop":
        jsonschema.validate(json.loads(last.text), sequence.schema)
    else:
        assert len(sequence.answer) == MAX_TOKENS


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=st.lists(asked(), min_size=1, max_size=6))
def test_what_stops_is_valid_and_company_unharmed(events: list[Event]) -> None:
    """Every answer under a schema that ended by itself parses and is valid under it, and every
    other answer is, token for token, what generate gives."""
    run(model(), Capacity(prefill_chunk_tokens=16), events)
    for event in events:
        assert not event.sequence.sink.errors
        check(event.sequence)


def test_most_of_them_stop() -> None:
    """A bounded schema brings even a model of noise to an end."""
    events = [Event(0, Constrained(PROMPTS[0], CHOICE, Sampling(seed=n))) for n in range(20)]
    run(model(), Capacity(), events)
    ends = [event.sequence.sink.deltas[-1].finish_reason for event in events]
    assert ends.count("stop") > 10


def follow(sequence: Sequence, wanted: str) -> None:
    """Has a model that wants one text say it, as far as the grammar lets it."""
    for token in [*wanted.encode(), EOS]:
        raw = torch.nn.functional.one_hot(torch.tensor(token), VOCAB_SIZE).float()[None]
        raw = masked([sequence.matcher], raw)
        logits = adjusted([sequence.sampler], [sequence.banned], raw)
        if not sequence.finished:
            sequence.take(sample([sequence.sampler], logits, raw)[0])


def say(wanted: str, schema: dict[str, Any], **stopping: Any) -> Collected:
    sink = Collected()
    rules = {"max_tokens": 50, "token_ids": frozenset({EOS})} | stopping
    choice = Choice(0, (65,), Sampling(temperature=0, num_logprobs=2), Stopping(**rules))
    follow(Sequence(choice, VOCABULARY, sink, compiled(schema)), wanted)
    return sink


def test_the_end_comes_with_the_grammars() -> None:
    """Once nothing more is allowed the answer ends with `stop`, without a token for it."""
    sink = say('{"a": 1} and so on', OBJECT)
    assert [(d.text, d.num_tokens, d.finish_reason) for d in sink.deltas] == [
        ('{"a": 1}', 8, "stop")
    ]


def test_the_end_token_needs_an_end() -> None:
    """The end token is not allowed before the grammar accepts, and ends the answer where it does,
    also where more could follow and where `ignore_eos` is set."""
    assert say("12", {"type": "integer"}).deltas[0].text == "12"
    assert say("", {"enum": [7]}).deltas[0].text == "7"
    for ids in (frozenset({EOS}), frozenset()):
        sink = say("12", {"type": "integer"}, token_ids=ids)
        assert (sink.deltas[0].text, sink.deltas[0].finish_reason) == ("12", "stop")


def test_limits_hold_with_a_grammar() -> None:
    """max_tokens cuts the JSON and says `length`; a stop string ends it; an end that the last token
    allowed brings is an end."""
    assert say('{"abc": 1}', OBJECT, max_tokens=5).deltas[0].finish_reason == "length"
    assert say('{"abc": 1}', OBJECT, strings=("bc",)).deltas[0].text == '{"a'
    assert say("{}", OBJECT, max_tokens=2).deltas[0].finish_reason == "stop"


@pytest.mark.parametrize("before", ["{", '{"a":', '{"a": [1', '{"a": {"b": 2},'])
@pytest.mark.parametrize("blank", ["\n", " "])
def test_blanks_come_to_an_end(before: str, blank: str) -> None:
    """A model that would write blanks for ever is stopped after some, and goes on with the JSON."""
    (delta,) = say(before + 200 * blank, OBJECT, max_tokens=len(before) + MAX_BLANKS + 1).deltas
    assert delta.text.startswith(before + MAX_BLANKS * blank)
    assert delta.text[-1] not in " \t\r\n"


@pytest.mark.parametrize(
    "text",
    [
        '{"' + 200 * " " + 'a": "' + 200 * " " + '"}',  # inside strings
        json.dumps({"a": [{"b": [1, {"c": []}, True]}] * 3}, indent=12),
    ],
)
def test_layout_is_the_models(text: str) -> None:
    """Indentation is allowed, and so is any number of blanks inside a string."""
    (delta,) = say(text, OBJECT, max_tokens=len(text)).deltas
    assert (delta.text, delta.finish_reason) == (text, "stop")


def test_min_tokens_gives_way() -> None:
    """min_tokens beyond what the grammar allows ends the answer where the grammar does."""
    sink = say("7", {"enum": [7, 77]}, min_tokens=5)
    assert [(d.text, d.finish_reason) for d in sink.deltas] == [("77", "stop")]
    assert not sink.errors


def test_logprobs_are_of_what_was_allowed() -> None:
    """Log probabilities are those among the allowed tokens, as vLLM gives them: a token without an
    alternative is certain."""
    first, *_ = say("7", {"enum": [7]}).deltas[0].logprobs
    assert (first.token, first.logprob) == (b"7", 0.0)


def test_a_token_that_is_not_allowed_fails_alone() -> None:
    """Should the mask have been passed by, the one sequence fails, with an error of its own."""
    sink = Collected()
    choice = Choice(0, (65,), Sampling(), Stopping(max_tokens=9))
    sequence = Sequence(choice, VOCABULARY, sink, compiled(OBJECT))
    sequence.take(Sampled(ord("x")))
    assert [type(error) for error in sink.errors] == [RoundhouseError]
    assert sequence.ended


def test_a_grammar_that_fails_harms_nobody() -> None:
    """A grammar that gets too complex on its way fails its request, as the client's to change; the
    others' tokens stay what they are."""
    broken, good = Constrained(PROMPTS[0], OBJECT, Sampling(seed=1)), Asked(PROMPTS[1], MAX_TOKENS)
    fine = Constrained(PROMPTS[2], PERSON, Sampling(seed=2))
    assert broken.matcher is not None
    broken.matcher.state.consume_token(ord("x"))  # llguidance's failures are all of this kind
    run(model(), Capacity(), [Event(0, broken), Event(0, good), Event(0, fine)])
    (error,) = broken.sink.errors
    assert isinstance(error, InvalidRequest)
    assert error.param == "response_format"
    check(good)
    check(fine)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"},
        {"$ref": "#/$defs/none"},
        {"type": "array", "uniqueItems": True},
        {"not": {"type": "string"}},
        {"type": "string", "pattern": "(?=a)b"},
        {"properties": {"a": 3}},
    ],
)
def test_what_cannot_be_enforced_is_refused(schema: dict[str, Any]) -> None:
    """A wrong schema, or one with what the library cannot enforce, is refused with its reason."""
    with pytest.raises(InvalidRequest, match="Invalid 'response_format'") as refused:
        compiled(schema)
    assert refused.value.param == "response_format"
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 10**9},
        {"type": "array", "maxItems": 10**9},
        {"anyOf": [{"items": {"type": "array", "minItems": 40_000}} for _ in range(2)]},
        {"type": "number", "multipleOf": 10**6 + 3},
        {"type": "number", "multipleOf": 1.000003},
        {"anyOf": [{"type": "integer", "multipleOf": m} for m in (1009, 1013, 1019)]},
    ],
)
def test_no_schema_takes_all_memory(schema: dict[str, Any]) -> None:
    """What would take the library gigabytes is refused before it is given to it."""
    with pytest.raises(InvalidRequest, match="too much") as refused:
        json_source(schema, "response_format")
    assert refused.value.param == "response_format"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 1000, "maxItems": 2000},
        {"enum": [{"minItems": 10**9}]},
        {"type": "object", "properties": {"minItems": {"const": 10**9}}},
        {"anyOf": [{"type": "number", "multipleOf": m} for m in (0.01, 0.5, 5, 100, 1000, 1e3)]},
    ],
)
def test_what_people_ask_for_is_not_too_much(schema: dict[str, Any]) -> None:
    """Arrays and divisions of ordinary sizes are enforced, and large numbers that count nothing."""
    compiled(schema)


def test_no_client_loosens_the_rules() -> None:
    """A schema's own settings of the library count for nothing."""
    with pytest.raises(InvalidRequest):
        compiled({"not": {}, "x-guidance": {"lenient": True}})


def test_grammars_are_kept_and_not_for_ever() -> None:
    """A grammar is compiled once for any number of requests, on any thread, and only so many are
    kept."""
    kept = Grammars(VOCABULARY, VOCAB_SIZE, frozenset({EOS}))
    first = kept.compile(json_source({"enum": [0]}, "response_format"))
    found: list[Any] = []
    other = threading.Thread(
        target=lambda: found.append(kept.compile(json_source({"enum": [0]}, "response_format")))
    )
    other.start()
    other.join()
    assert found[0].start is first.start
    for number in range(1, grammars.MAX_KEPT_GRAMMARS + 9):
        kept.compile(json_source({"enum": [number]}, "response_format"))
    assert len(kept) == grammars.MAX_KEPT_GRAMMARS


def test_tokens_beyond_the_vocabulary_are_never_allowed() -> None:
    """Logits may be wider or narrower than the grammar's vocabulary, and a model may lack an end
    token."""
    endless = Grammars(VOCABULARY, VOCAB_SIZE, frozenset())
    matcher = endless.compile(json_source({"enum": [7]}, "response_format")).matcher()
    for width in (VOCAB_SIZE - 20, VOCAB_SIZE, VOCAB_SIZE + 50):
        got = masked([None, matcher], torch.zeros(2, width))
        assert got[1].isfinite().nonzero().flatten().tolist() == [ord("7")]
        assert got[0].isfinite().all()
