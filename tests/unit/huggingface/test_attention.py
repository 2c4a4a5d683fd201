import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from deployments.errors import StartError
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.loading.loader import load
from deployments.huggingface.loading.self_check import settle

from .architectures import random_model, save
from .asking import COMPLETIONS, ask, configured, started
from .test_self_check import TEXT_MODEL


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", "sdpa"),
        ("falcon", "sdpa"),
        ("gemma3_text", "sdpa"),
        ("bloom", "eager"),
        ("mpt", "eager"),
        ("gemma2", "eager"),
    ],
)
def test_attention_is_fused_where_that_is_exact(kind: str, expected: str, tmp_path: Path) -> None:
    """sdpa where the class has it, but not where it would leave out a cap on the logits."""
    save(kind, tmp_path)
    assert load(configured(tmp_path)).model.config._attn_implementation == expected


async def test_capped_attention_is_what_the_model_defines(tmp_path: Path) -> None:
    """Gemma 2 gives the tokens of its own attention, which are not those of the fused one."""
    save("gemma2", tmp_path)
    prompt = list(range(100, 112))
    said = {}
    for implementation in ("auto", "eager", "sdpa"):
        settings = {"attn_implementation": implementation}
        async with started(tmp_path, **settings) as backend:
            fields = {"prompt": prompt, "temperature": 0, "max_tokens": 8, "logprobs": 0}
            got = await ask(backend, COMPLETIONS, **fields)
        said[implementation] = got.body["choices"][0]["logprobs"]["token_logprobs"]
    assert said["auto"] == said["eager"] != said["sdpa"]


@pytest.mark.parametrize("asked", ["eager", "sdpa"])
def test_the_operator_may_choose(asked: str, random_checkpoint: Path) -> None:
    """`attn_implementation` is taken as it is."""
    model = load(configured(random_checkpoint, attn_implementation=asked)).model
    assert model.config._attn_implementation == asked


def test_what_a_model_cannot_do_is_refused(tmp_path: Path) -> None:
    """An attention that the class does not have is an error, by its name."""
    save("bloom", tmp_path)
    with pytest.raises(StartError, match="BloomForCausalLM does not support"):
        load(configured(tmp_path, attn_implementation="sdpa"))


def bent(module: Any, *args: Any, **kwargs: Any) -> Any:
    """A fused attention that is not what the model's own is."""
    output, weights = sdpa_attention_forward(module, *args, **kwargs)
    return output * 1.1, weights


def mixing(module: Any, query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """A fused attention that is right for one row, and lets rows see each other."""
    output, weights = sdpa_attention_forward(module, query, *args, **kwargs)
    return output + 0.1 * (output.sum(0, keepdim=True) - output), weights


@pytest.mark.parametrize(("wrong", "why"), [(bent, "other logits"), (mixing, "cannot be batched")])
def test_a_fused_attention_that_is_not_exact_is_left(
    wrong: Any, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The model's own attention is the measure, alone and in a batch; the switch is logged."""
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", wrong)
    model: LlamaForCausalLM = random_model("llama")
    with caplog.at_level(logging.WARNING):
        assert settle(Decoder(model), model, TEXT_MODEL, attention_is_free=True)
    assert model.config._attn_implementation == "eager"
    assert why in caplog.text


def test_an_attention_that_was_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `attn_implementation` set, a model that cannot be batched with it is not switched."""
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", mixing)
    model = random_model("llama")
    assert not settle(Decoder(model), model, TEXT_MODEL, attention_is_free=False)
    assert model.config._attn_implementation == "sdpa"
