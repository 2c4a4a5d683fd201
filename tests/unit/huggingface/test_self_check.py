import logging
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from deployments.config import HuggingFaceConfig
from deployments.huggingface.engine.capacity import UNLIMITED
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.loading.measure import measure
from deployments.huggingface.loading.self_check import settle
from deployments.huggingface.protocol.plan import Limits, TextModel
from tests import tiny_models

from .architectures import KINDS, MORE, SMALL, random_model
from .models import EOS, VOCAB_SIZE
from .scheduling import VOCABULARY, Asked, Event, generated, run

TEXT_MODEL = TextModel(VOCABULARY, Limits(128, VOCAB_SIZE, frozenset({EOS}), {}))

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # gpt_bigcode


class CountsPadding(LlamaForCausalLM):
    """Takes no positions, and counts columns instead."""

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        return super().forward(input_ids, **kwargs)


class MixesRows(LlamaForCausalLM):
    """Lets each row see a little of the others."""

    def forward(self, position_ids: torch.Tensor, **kwargs: Any) -> Any:
        output = super().forward(position_ids=position_ids, **kwargs)
        output.logits = output.logits + 0.01 * output.logits.sum(0, keepdim=True)
        return output


class TakesNoMask(LlamaForCausalLM):
    """Refuses padding."""

    def forward(self, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if attention_mask is not None and not attention_mask.all():
            raise ValueError("padding is not supported")
        return super().forward(attention_mask=attention_mask, **kwargs)


@pytest.mark.parametrize("kind", [*KINDS, *MORE])
def test_the_architectures_we_promise_are_batched(kind: str) -> None:
    """None of them is served one at a time."""
    model = random_model(kind)
    assert settle(Decoder(model), model, TEXT_MODEL, attention_is_free=False)


@pytest.mark.parametrize("wrong", [CountsPadding, MixesRows, TakesNoMask])
def test_what_cannot_be_batched_is_served_one_at_a_time(
    wrong: type[LlamaForCausalLM], caplog: pytest.LogCaptureFixture
) -> None:
    """A model that would answer wrongly in a batch is found out, and still answers rightly."""
    torch.manual_seed(3)
    model = wrong(CONFIG_MAPPING["llama"](**SMALL)).eval()
    with caplog.at_level(logging.WARNING):
        capacity = measure(model, TEXT_MODEL, HuggingFaceConfig(checkpoint="x"))
    assert f"{wrong.__name__} does not give the same logits" in caplog.text
    assert (capacity.max_sequences, capacity.prefill_chunk_tokens) == (1, UNLIMITED)
    asked = [Asked((1, 2, 3), 9), Asked((4,) * 20, 5)]
    run(model, capacity, [Event(0, sequence) for sequence in asked])
    for sequence in asked:
        right = generated(model, sequence.prompt, 9)
        assert sequence.answer == right[: len(sequence.answer)]
        assert sequence.sink.deltas[-1].finish_reason


def test_a_model_with_a_running_state_is_served_one_at_a_time() -> None:
    """Rows cannot join a recurrent state, so such a model is not even tried in a batch."""
    model = tiny_models.random_model(
        "qwen3_next",
        **SMALL,
        num_key_value_heads=1,
        head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        num_experts=0,
        mlp_only_layers=[0, 1],
    )
    capacity = measure(model, TEXT_MODEL, HuggingFaceConfig(checkpoint="x"))
    assert capacity.max_sequences == 1
    asked = [Asked((1, 2, 3), 9), Asked((4,) * 20, 5)]
    run(model, capacity, [Event(0, sequence) for sequence in asked])
    for sequence in asked:
        assert sequence.answer == generated(model, sequence.prompt, 9)[: len(sequence.answer)]


def test_memory_bounds_the_batch() -> None:
    """Left to itself the budget is what memory has room for; the operator's own is taken as is."""
    model = random_model("llama")
    measured = measure(model, TEXT_MODEL, HuggingFaceConfig(checkpoint="x"))
    assert 10**4 < measured.max_batch_tokens < 10**12
    config = HuggingFaceConfig(
        checkpoint="x",
        max_batch_tokens=77,
        max_sequences=3,
        max_queued_requests=5,
        prefill_chunk_tokens=9,
    )
    asked = measure(model, TEXT_MODEL, config)
    assert (asked.max_batch_tokens, asked.max_sequences) == (77, 3)
    assert (asked.max_queued_requests, asked.prefill_chunk_tokens) == (5, 9)
