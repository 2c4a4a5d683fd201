"""Mixtures of experts, whose files hold each expert apart and whose model holds them as one."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.unit.huggingface.asking import COMPLETIONS, ask, started
from tests.unit.huggingface.models import EOS, VOCAB_SIZE, byte_tokenizer

from .test_served import memory, texts

SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 256,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "num_experts_per_tok": 2,
    "bos_token_id": EOS,
    "eos_token_id": EOS,
}
EXPERTS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 8, "intermediate_size": 512},
    "qwen2_moe": {
        "num_experts": 8,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 128,
        "intermediate_size": 512,
    },
}
ASKED: dict[str, Any] = {"prompt": "abc", "temperature": 0, "max_tokens": 5}


@pytest.fixture(params=EXPERTS)
def experts(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint of 100 MB with eight experts in each layer."""
    torch.manual_seed(5)
    config = CONFIG_MAPPING[request.param](**SIZES | EXPERTS[request.param])
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    return tmp_path


async def test_experts_larger_than_memory(
    experts: Path, tmp_path_factory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What the streamer cannot do it refuses by name, and accelerate serves it with the resident
    model's answers; asked for, accelerate does it without a word."""
    async with started(experts) as backend:
        expected = await ask(backend, COMPLETIONS, **ASKED)
    for streaming in ("auto", "accelerate"):
        caplog.clear()
        disk = tmp_path_factory.mktemp("disk")
        asked = memory(experts) | {"streaming": streaming, "disk": str(disk)}
        with caplog.at_level(logging.WARNING):
            async with started(experts, memory=asked) as backend:
                model = backend.engine._scheduler._decoder._model
                assert not hasattr(model, "streamer")
                assert sum(weight.is_meta for weight in model.parameters()) > 10
                assert texts(await ask(backend, COMPLETIONS, **ASKED)) == texts(expected)
                name = type(model).__name__
        refused = f"{name} is streamed by accelerate, which is slower: `model.layers."
        assert (refused in caplog.text) is (streaming == "auto")
        assert ("is only a part of a parameter" in caplog.text) is (streaming == "auto")
