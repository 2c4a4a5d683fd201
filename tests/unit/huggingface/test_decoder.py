"""What a pass costs beyond its arithmetic."""

from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from deployments.huggingface.engine.decoder import Decoder

from .architectures import random_model


@pytest.mark.parametrize("kind", ["llama", "bloom"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 7), (4, 7), (4, 1)])
def test_the_head_is_not_copied(kind: str, rows: int, columns: int) -> None:
    """The last columns of a prefill meet the output head in one plain multiplication: torch
    multiplies rows with gaps batch by batch, and copies a head in half precision for each."""
    model: Any = random_model(kind).to(torch.bfloat16)
    decoder = Decoder(model)
    Decoder(model)  # as the engine's, after the loader's
    assert len(model.get_output_embeddings()._forward_pre_hooks) == 1
    ids = torch.ones((rows, columns), dtype=torch.long)
    vocab_size = model.config.vocab_size
    with (
        torch.inference_mode(),
        profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen,
    ):
        decoder.forward(ids, torch.ones_like(ids), None)
    heads = [
        event.name
        for event in seen.events()
        if event.name in {"aten::mm", "aten::bmm", "aten::addmm"}
        and any(vocab_size in shape for shape in event.input_shapes)
    ]
    assert heads == ["aten::mm"]
