"""Adapters and embedders on a GPU say what they say on a CPU."""

from pathlib import Path

import pytest

from tests.gpu.device import DEVICE, ON_GPU, needs_gpu, torch
from tests.unit.huggingface.architectures import random_model
from tests.unit.huggingface.asking import embedded, started
from tests.unit.huggingface.embedders import TEXTS, normalize, reference, save_embedder
from tests.unit.huggingface.lora import generated_with, save_adapter
from tests.unit.huggingface.scheduling import Asked, Event, run

pytestmark = needs_gpu


def test_adapters_share_a_batch(tmp_path: Path) -> None:
    """Rows of two adapters and of the base run together on the GPU, each with PEFT's tokens."""
    from deployments.huggingface.adapters.loading import inject
    from deployments.huggingface.engine.capacity import Capacity

    folders = {n: save_adapter(random_model("llama"), tmp_path / n, seed=ord(n)) for n in "ab"}
    model = random_model("llama").to(DEVICE)
    adapters = inject(model, folders)
    assert adapters.mixes
    prompt = tuple(range(40, 53))
    asked = [Asked(prompt, 20, adapter=name) for name in ("a", "b", None, "a")]
    run(model, Capacity(), [Event(n // 2, one) for n, one in enumerate(asked)], adapters)
    for one in asked:
        if one.adapter is not None:
            fresh = random_model("llama")
            assert one.answer == generated_with(fresh, folders[one.adapter], prompt, 20)
    assert len({tuple(one.answer) for one in asked}) == 3


@pytest.mark.parametrize("kind", ["bert", "qwen3"])
async def test_embeddings(kind: str, tmp_path: Path) -> None:
    """Vectors made on the GPU are sentence-transformers' on a CPU, but for rounding."""
    saved = save_embedder(kind, tmp_path, "mean", normalize())
    before = torch.cuda.memory_allocated()
    async with started(saved) as backend:
        assert not ON_GPU or torch.cuda.memory_allocated() > before
        vectors = await embedded(backend, TEXTS)
    assert torch.allclose(vectors, reference(saved, TEXTS), rtol=0, atol=1e-3)
