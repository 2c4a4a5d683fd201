"""LongRoPE: the positions of a text beyond a length are others, and only those of that text."""

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from deployments.huggingface.embedding.encoder import Encoder
from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.engine.decoder import Decoder
from tests import tiny_models

from .architectures import SMALL, random_model
from .models import EOS
from .scheduling import Asked, Event, assert_as_alone, generated, run
from .test_batching import MAX_TOKENS, capacities, prompt

TURN = 20
ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 9.0],
    "original_max_position_embeddings": TURN,
}
KINDS: dict[str, dict[str, Any]] = {
    "phi3": {"original_max_position_embeddings": TURN},
    "llama": {},
    "phimoe": {
        "original_max_position_embeddings": TURN,
        "num_local_experts": 2,
        "rope_parameters": ROPE | {"short_mscale": 1.0, "long_mscale": 1.5},
    },
}


@cache
def model_of(kind: str) -> Any:
    more = {"num_key_value_heads": 1, "rope_parameters": dict(ROPE), **KINDS[kind]}
    return tiny_models.random_model(kind, **SMALL | more)


@cache
def expected(kind: str, length: int) -> list[int]:
    """What generate says. Of models that mean to read a text anew where its positions change it is
    from there what generate says of prompt and answer as a new prompt."""
    model, asked = model_of(kind), prompt(length)
    said: list[int] = []
    if length <= TURN and Decoder(model).forgets:
        said = generated(model, asked, TURN + 1 - length)[:MAX_TOKENS]
    left = MAX_TOKENS - len(said)
    return said if EOS in said or not left else said + generated(model, (*asked, *said), left)


def events() -> st.SearchStrategy[list[Event]]:
    request = st.builds(
        lambda at_step, length, max_tokens, cancelled_after: Event(
            at_step, Asked(prompt(length), max_tokens), cancelled_after
        ),
        st.integers(0, 25),
        st.sampled_from((1, 8, 13, TURN - 1, TURN, TURN + 1, 34, 55)),
        st.integers(1, MAX_TOKENS),
        st.none() | st.integers(0, 20),
    )
    return st.lists(request, min_size=1, max_size=9)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=events(), capacity=capacities)
def test_company_changes_no_token(kind: str, asked: list[Event], capacity: Capacity) -> None:
    """Short, long, or on its way from one to the other, an answer has the tokens of generate,
    whatever arrives, ends or is cancelled meanwhile."""
    run(model_of(kind), capacity, asked)
    assert_as_alone(asked, lambda sequence: expected(kind, len(sequence.prompt)))


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_the_positions_do_change(kind: str) -> None:
    """Each row of a pass is what it is alone, and a long one is not what short positions make it:
    without that the tests here would say nothing."""
    decoder = Decoder(model_of(kind))
    assert (decoder.turn, decoder.forgets) == (TURN, kind != "llama")
    ids = torch.tensor([prompt(TURN + 5)])
    both = torch.cat([torch.nn.functional.pad(ids[:, :TURN], (5, 0)), ids])
    mask = torch.ones_like(both)
    mask[0, :5] = 0
    logits, _ = decoder.forward(both, mask, None)
    assert torch.allclose(logits[0], last(decoder, ids[:, :TURN]), atol=1e-4)
    assert torch.allclose(logits[1], last(decoder, ids), atol=1e-4)
    _, cache = decoder.forward(ids[:, :TURN], torch.ones((1, TURN), dtype=torch.long), None)
    in_part, _ = decoder.forward(ids[:, TURN:], torch.ones_like(ids), cache)
    assert not torch.allclose(in_part[0], logits[1], atol=1e-2)


def last(decoder: Decoder, ids: Tensor) -> Tensor:
    logits, _ = decoder.forward(ids, torch.ones_like(ids), None)
    return logits[0]


def test_an_embedders_texts_too() -> None:
    """A short text beside a long one has the vector that it has alone."""
    encoder = Encoder(model_of("llama").model, torch.nn.Identity(), ["mean"])
    texts = [prompt(13), prompt(TURN + 1), prompt(34)]
    together = encoder.encode(texts)
    for text, vector in zip(texts, together, strict=True):
        assert torch.allclose(encoder.encode([text])[0], vector, atol=1e-4)


def test_others_are_left_as_they_are() -> None:
    """A model whose positions never change is read in chunks, whatever its length."""
    assert Decoder(random_model("llama")).turn is None
