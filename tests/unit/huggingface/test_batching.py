"""Exactness: what joins, leaves or is cancelled beside a request does not change its tokens."""

import random
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.huggingface.engine.capacity import Capacity

from .architectures import KINDS, MORE, random_model
from .models import EOS
from .scheduling import Asked, Event, assert_as_alone, generated, run

PROMPT_LENGTHS = (1, 2, 3, 5, 8, 9, 13, 21, 34, 55)
MAX_TOKENS = 24

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # gpt_bigcode


@cache
def model_of(kind: str) -> Any:
    return random_model(kind)


@cache
def prompt(length: int) -> tuple[int, ...]:
    return tuple(random.Random(length).choices(range(EOS), k=length))


@cache
def expected(kind: str, length: int) -> list[int]:
    return generated(model_of(kind), prompt(length), MAX_TOKENS)


def events() -> st.SearchStrategy[list[Event]]:
    request = st.builds(
        lambda at_step, length, max_tokens, cancelled_after: Event(
            at_step, Asked(prompt(length), max_tokens), cancelled_after
        ),
        st.integers(0, 25),
        st.sampled_from(PROMPT_LENGTHS),
        st.integers(1, MAX_TOKENS),
        st.none() | st.integers(0, 20),
    )
    return st.lists(request, min_size=1, max_size=9)


capacities = st.builds(
    Capacity,
    max_batch_tokens=st.sampled_from((80, 200, 10**6)),
    max_sequences=st.sampled_from((2, 4, 256)),
    prefill_chunk_tokens=st.sampled_from((1, 4, 16, 512)),
    max_move_bytes=st.sampled_from((None, 0, 20_000)),
)


@pytest.mark.parametrize("kind", [*KINDS, *MORE])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=events(), capacity=capacities)
def test_company_changes_no_token(kind: str, asked: list[Event], capacity: Capacity) -> None:
    """Greedy tokens are those of generate, whatever arrives, ends or is cancelled meanwhile."""
    run(model_of(kind), capacity, asked)
    assert_as_alone(asked, lambda sequence: expected(kind, len(sequence.prompt)))


@pytest.mark.parametrize("kind", [*KINDS, *MORE])
def test_there_is_something_to_change(kind: str) -> None:
    """The answers are varied: a model that says one token again and again would say it in any
    company."""
    answers = [expected(kind, length) for length in PROMPT_LENGTHS]
    assert sum(len(set(answer)) for answer in answers) > 3 * len(answers)
