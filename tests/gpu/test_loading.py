"""Loading on a GPU: quantised layers where they belong, and batches that change only ties."""

from typing import Any

import pytest

from deployments import backends
from tests.contract.asking import ask, exchange
from tests.contract.subjects import MODEL, started
from tests.gpu.device import DEVICE, needs_gpu, torch

pytestmark = needs_gpu

LAYERS = {"int8": "Linear8bitLt", "nf4": "Linear4bit"}


@pytest.mark.parametrize("quantization", LAYERS)
async def test_quantised(quantization: str) -> None:
    """The demo in 8 or 4 bits is on the GPU, is batched, and still knows what it knew."""
    args = {"model_type": "demo", "backend": "huggingface", "quantization": quantization}
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    async with started(backends.build(MODEL, backends.configure(args))) as backend:
        answered = await ask(backend, exchange({"messages": turns, "temperature": 0}))
    assert "Paris" in answered.text


@pytest.mark.parametrize("quantization", LAYERS)
def test_quantised_layers(quantization: str) -> None:
    """Every linear layer but the output head is converted, on the GPU, and rows can be batched."""
    from deployments.config import HuggingFaceConfig
    from deployments.huggingface.loading.loader import load

    config = HuggingFaceConfig(checkpoint="package:demo/model", quantization=quantization)
    loaded = load(config)
    linear = [m for m in loaded.model.modules() if isinstance(m, torch.nn.Linear)]
    assert [type(m).__name__ for m in linear].count(LAYERS[quantization]) == len(linear) - 1
    assert all(m.weight.device.type == DEVICE for m in linear)
    assert loaded.capacity.max_sequences > 1


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt_bigcode", "falcon", "bloom", "mpt"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_company_changes_only_ties(kind: str, dtype: str) -> None:
    """In 16 bits an answer is what it is alone, up to tokens that were as likely."""
    from tests.unit.huggingface.architectures import random_model
    from tests.unit.huggingface.test_half_precision import check_ties

    model: Any = random_model(kind)
    check_ties(model.to(DEVICE, getattr(torch, dtype)))
