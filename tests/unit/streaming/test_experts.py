"""Mixtures of experts, whose files hold each expert apart and whose model holds them as one."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from deployments.huggingface.streaming import streamed
from deployments.placement.arrangement import Tier
from deployments.placement.budget import Budget
from deployments.placement.demand import demand
from deployments.placement.planner import Question, make_plan
from deployments.placement.source import from_folder
from deployments.placement.workload import Workload
from tests.unit.huggingface.asking import COMPLETIONS, ask, started
from tests.unit.huggingface.models import EOS, VOCAB_SIZE, byte_tokenizer

from .checkpoints import resident, streaming
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
    """Experts are put together once, in the offload folder, and streamed; asked for, accelerate
    brings them. Both say what the resident model says."""
    async with started(experts) as backend:
        expected = await ask(backend, COMPLETIONS, **ASKED)
    for way in ("auto", "accelerate"):
        disk = tmp_path_factory.mktemp("disk")
        asked = memory(experts) | {"streaming": way, "disk": str(disk)}
        with caplog.at_level(logging.WARNING):
            async with started(experts, memory=asked) as backend:
                model = backend.engine._scheduler._decoder._model
                assert hasattr(model, "streamer") is (way == "auto")
                num_meta = sum(weight.is_meta for weight in model.parameters())
                assert (num_meta > 10) is (way == "accelerate")
                assert texts(await ask(backend, COMPLETIONS, **ASKED)) == texts(expected)
    assert "is streamed by accelerate" not in caplog.text


def test_logits_are_equal(experts: Path) -> None:
    """Bit for bit, in float32 and cast to bfloat16, in batches of 1 and 8."""
    ids = torch.randint(0, 200, (8, 11))
    for dtype in (torch.float32, torch.bfloat16):
        expected = resident(experts, dtype)
        model, _ = streaming(experts, dtype, 2)
        with torch.inference_mode():
            for batch in (1, 8):
                assert torch.equal(model(ids[:batch]).logits, expected(ids[:batch]).logits)


def test_what_cannot_be_put_together(experts: Path) -> None:
    """Without a disk to put experts together on, the streamer refuses by saying so."""
    asked = from_folder(experts)
    assert demand(asked, "none", Workload()).repacked
    budget = Budget(0, 10**9, 10**9, base_bytes=0)
    plan = make_plan(Question(asked, Workload(), budget, ("none",), (Tier.DISK,)))
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(experts))
    with pytest.raises(streamed.Unstreamable, match="there is no disk to do that on"):
        streamed.load(skeleton, plan, None, lambda progress: None)
