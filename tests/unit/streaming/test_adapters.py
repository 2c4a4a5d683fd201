"""Adapters of a model whose layers come and go."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from deployments.exchange import Exchange
from tests.unit.huggingface.asking import COMPLETIONS, exchange_of, started
from tests.unit.huggingface.lora import save_adapter

from .test_served import large, memory, streamer_of

__all__ = ["large"]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")  # of training, and of hub ids


async def texts(backend: Any) -> list[str]:
    """What the base and its adapters say, all at a time, twice."""

    async def text(model: str) -> str:
        body = exchange_of(COMPLETIONS, prompt="abc", temperature=0, max_tokens=6).body
        items = [i async for i in backend.exchange(Exchange(COMPLETIONS, body, "r", model))]
        answer = json.loads(b"".join(item for item in items if isinstance(item, bytes)))
        return str(answer["choices"][0]["text"])

    return list(await asyncio.gather(*map(text, [*backend.card().models] * 2)))


async def test_adapters_of_a_streamed_model(large: Path, tmp_path_factory: Any) -> None:
    """Base and adapters share the batch over streamed weights, and say what they say over resident
    ones."""
    root = tmp_path_factory.mktemp("adapters")
    model = AutoModelForCausalLM.from_pretrained(large)
    adapters = {"a": str(save_adapter(model, root / "a", seed=1))}
    model = AutoModelForCausalLM.from_pretrained(large)
    adapters["b"] = str(save_adapter(model, root / "b", seed=2, target_modules=["q_proj"]))
    del model
    async with started(large, adapters=adapters) as backend:
        expected = await texts(backend)
    assert len(set(expected)) == len(adapters) + 1
    async with started(large, adapters=adapters, memory=memory(large)) as backend:
        assert streamer_of(backend).streamed_layers
        assert await texts(backend) == expected
