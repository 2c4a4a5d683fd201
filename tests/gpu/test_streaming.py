"""Layers that a GPU streams from RAM and disk: exact, and as fast as the link, on a real device.

Nothing here has been run by us: no machine with a GPU could be had when it was written.
"""

from pathlib import Path
from typing import Any

import pytest

from deployments.placement.arrangement import Tier
from tests.gpu.link import pinned_bytes_per_s, timed

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

TIERS = {
    "ram": [Tier.RESIDENT] * 2 + [Tier.RAM] * 6,
    "disk": [Tier.RESIDENT] * 2 + [Tier.DISK] * 6,
    "mixed": [Tier.RESIDENT, *[Tier.RAM, Tier.DISK] * 3, Tier.RAM],
}


def streaming(folder: Path, tiers: list[Tier], quantization: str = "none") -> Any:
    from tests.unit.streaming.checkpoints import Way, streamed_by

    way = Way(tiers, 3, quantization, torch.device("cuda"))
    return streamed_by(way, folder, torch.bfloat16)


@pytest.mark.parametrize("tiers", TIERS)
@pytest.mark.parametrize("kind", ["llama", "bloom", "falcon", "gpt_neox", "gpt_bigcode", "mpt"])
def test_logits_are_equal(kind: str, tiers: str, tmp_path: Path) -> None:
    """Streamed from RAM, from disk or both, the logits are the resident model's."""
    from tests.unit.streaming.checkpoints import resident, save_deep

    save_deep(kind, tmp_path, torch.bfloat16)
    expected = resident(tmp_path, torch.bfloat16).cuda()
    model, _ = streaming(tmp_path, TIERS[tiers])
    ids = torch.randint(0, 200, (8, 11), device="cuda")
    with torch.inference_mode():
        for batch in (1, 8, 1, 8):
            assert torch.equal(model(ids[:batch]).logits, expected(ids[:batch]).logits)


@pytest.mark.parametrize("tiers", TIERS)
def test_passes_side_by_side(tiers: str, tmp_path: Path) -> None:
    """Under the batcher prompts and answers share each pass over the weights, and every logit is
    the resident model's."""
    from tests.unit.streaming.checkpoints import resident, save_deep
    from tests.unit.streaming.test_exact import said

    save_deep("llama", tmp_path, torch.bfloat16)
    expected = said(resident(tmp_path, torch.bfloat16).cuda())
    got = said(streaming(tmp_path, TIERS[tiers])[0])
    assert len(got) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_quantized_layers(quantization: str, tmp_path: Path) -> None:
    """Packed layers say the same whether they come from RAM or from disk."""
    from tests.unit.streaming.checkpoints import save_deep

    save_deep("llama", tmp_path, torch.bfloat16)
    ids = torch.randint(0, 200, (3, 9), device="cuda")
    with torch.inference_mode():
        ram, disk = (
            streaming(tmp_path, TIERS[tiers], quantization)[0](ids).logits
            for tiers in ("ram", "disk")
        )
    assert ram.isfinite().all()
    assert torch.equal(ram, disk)


@pytest.mark.parametrize("batch", [1, 8, 32, 64])
def test_steps_take_as_long_as_the_link(batch: int, tmp_path: Path) -> None:
    """A decode step over 6 GB in RAM runs at 0.8 of the measured pinned copy rate or more."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=260,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=8,
        num_attention_heads=32,
        num_key_value_heads=8,
    )
    with torch.device("cuda"):
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    model, streamer = streaming(tmp_path, [Tier.RAM] * 8)
    ids = torch.zeros((batch, 1), dtype=torch.long, device="cuda")
    with torch.inference_mode():
        model(ids)
        seconds = timed(lambda: [model(ids) for _ in range(5)]) / 5
    num_bytes = sum(layout.num_bytes for layout in streamer.ring._layouts)
    assert num_bytes / seconds > 0.8 * pinned_bytes_per_s()
