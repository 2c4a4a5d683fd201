"""A model that streams says what the resident one says, bit for bit."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.streaming.borrowed import borrowed_weights
from tests.unit.huggingface.architectures import KINDS
from tests.unit.huggingface.scheduling import Asked, Event, run

from .checkpoints import resident, save_deep, streaming

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # gpt_bigcode


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_equal(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Every architecture, with 2 and 5 slots, alone and in a batch of 8, over several steps."""
    save_deep(kind, tmp_path, dtype)
    expected = resident(tmp_path, dtype)
    ids = torch.randint(0, 200, (8, 11))
    for num_slots in (2, 5):
        model, streamer = streaming(tmp_path, dtype, num_slots)
        assert streamer.ring.num_slots == num_slots
        with torch.inference_mode():
            for batch in (1, 8, 1):
                assert torch.equal(model(ids[:batch]).logits, expected(ids[:batch]).logits)


def events() -> list[Event]:
    """Requests that join, leave and are cancelled while others run."""
    chance = random.Random(11)
    asked = []
    for step in range(0, 24, 2):
        prompt = tuple(chance.choices(range(200), k=chance.choice((1, 3, 9, 30))))
        cancelled = chance.choice((None, None, 1, 5))
        asked.append(Event(step, Asked(prompt, chance.choice((1, 4, 12))), cancelled))
    return asked


def said(model: Any) -> list[Tensor]:
    """The logits of every pass that the scheduler makes."""
    passes: list[Tensor] = []
    hook = model.register_forward_hook(lambda *call: passes.append(call[2].logits.clone()))
    # The same passes for both; of the resident one they run one after the other.
    run(model, Capacity(250, prefill_chunk_tokens=8, shares_passes=True), events())
    hook.remove()
    return passes


@pytest.mark.parametrize("num_slots", [2, 5])
@pytest.mark.parametrize("kind", ["llama", "bloom", "falcon", "gpt_neox", "gpt_bigcode", "mpt"])
def test_joins_leaves_and_cancels(kind: str, num_slots: int, tmp_path: Path) -> None:
    """Under the batcher, whoever comes and goes, every pass has the resident model's logits."""
    save_deep(kind, tmp_path, torch.float32)
    expected = said(resident(tmp_path, torch.float32))
    model, _ = streaming(tmp_path, torch.float32, num_slots, num_resident=1)
    got = said(model)
    assert len(expected) > 30
    assert len(got) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


def test_shards(tmp_path: Path) -> None:
    """Layers that are spread over several files."""
    save_deep("bloom", tmp_path, torch.float32, max_shard_size="40KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 3
    expected = resident(tmp_path, torch.float32)
    model, _ = streaming(tmp_path, torch.float32, 2)
    ids = torch.randint(0, 200, (3, 7))
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, expected(ids).logits)


def test_a_step_that_was_broken_off(tmp_path: Path) -> None:
    """After a pass that fails in its middle the next one is right: no layer stands for another."""
    save_deep("llama", tmp_path, torch.float32)
    expected = resident(tmp_path, torch.float32)
    model, _ = streaming(tmp_path, torch.float32, 3)
    ids = torch.randint(0, 200, (2, 5))

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    with torch.inference_mode():
        for layer in (0, 3, 7):
            hook = model.model.layers[layer].mlp.register_forward_hook(fail)
            with pytest.raises(RuntimeError, match="out of memory"):
                model(ids)
            hook.remove()
            assert torch.equal(model(ids).logits, expected(ids).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_borrowed_weights(kind: str, tmp_path: Path) -> None:
    """While layers borrow their weights nothing is read; afterwards each has its own again."""
    save_deep(kind, tmp_path, torch.float32)
    expected = resident(tmp_path, torch.float32)
    model, streamer = streaming(tmp_path, torch.float32, 3)
    ids = torch.randint(0, 200, (2, 5))
    with torch.inference_mode():
        with borrowed_weights(model):
            before = streamer.reader.num_read_bytes
            one, other = model(ids).logits, model(ids).logits
            assert streamer.reader.num_read_bytes == before
        assert torch.equal(one, other)
        assert one.isfinite().all()
        for _ in range(2):
            assert torch.equal(model(ids).logits, expected(ids).logits)
