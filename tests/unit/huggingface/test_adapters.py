"""LoRA adapters: what each row says is what PEFT says, in whatever company."""

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel

from deployments.config import HuggingFaceConfig
from deployments.huggingface.adapters.loading import inject
from deployments.huggingface.adapters.rows import Adapters
from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.loading.loader import Loaded, load
from deployments.huggingface.loading.measure import measure
from deployments.huggingface.loading.self_check import agree

from .architectures import random_model, save
from .asking import configured
from .lora import generated_with, save_adapter
from .scheduling import Asked, Event, assert_as_alone, generated, run
from .test_batching import MAX_TOKENS, capacities, prompt
from .test_self_check import TEXT_MODEL

NAMES = (None, "poet", "v1.2")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")  # of training, and of hub ids


@cache
def folders(kind: str) -> dict[str, Path]:
    root = Path(mkdtemp())
    more = {"modules_to_save": ["lm_head"]} if kind == "llama" else {}
    more = more | ({"use_dora": True} if kind == "qwen2" else {})
    return {
        "poet": save_adapter(random_model(kind), root / "a", seed=1, r=3, use_rslora=True),
        "v1.2": save_adapter(random_model(kind), root / "b", seed=2, **more),
    }


@cache
def adapted(kind: str) -> tuple[Any, Adapters, Capacity]:
    """A model with both adapters in it, and what was found out at its load."""
    model = random_model(kind)
    adapters = inject(model, folders(kind))
    capacity = measure(model, TEXT_MODEL, HuggingFaceConfig(checkpoint="x"), None, adapters)
    return model, adapters, capacity


@cache
def expected(kind: str, adapter: str | None, length: int) -> list[int]:
    if adapter is None:
        return generated(random_model(kind), prompt(length), MAX_TOKENS)
    folder = folders(kind)[adapter]
    return generated_with(random_model(kind), folder, prompt(length), MAX_TOKENS)


events = st.lists(
    st.builds(
        lambda at_step, adapter, length, max_tokens, cancelled_after: Event(
            at_step, Asked(prompt(length), max_tokens, adapter=adapter), cancelled_after
        ),
        st.integers(0, 20),
        st.sampled_from(NAMES),
        st.sampled_from((1, 2, 8, 13, 34)),
        st.integers(1, MAX_TOKENS),
        st.none() | st.integers(0, 20),
    ),
    min_size=2,
    max_size=9,
)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "falcon", "opt", "qwen2"])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=events, bounds=capacities)
def test_company_changes_no_token(kind: str, asked: list[Event], bounds: Capacity) -> None:
    """Greedy tokens are those of PEFT's generate with that adapter alone, and without one those
    of the model that never had any, whatever arrives, ends or is cancelled meanwhile."""
    model, adapters, measured = adapted(kind)
    run(model, replace(bounds, mixes_adapters=measured.mixes_adapters), asked, adapters)
    assert_as_alone(asked, lambda one: expected(kind, one.adapter, len(one.prompt)))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "falcon"])
def test_adapters_share_the_batch(kind: str) -> None:
    """Three requests with the same prompt, each with another adapter or none, run at once, and
    each says something else."""
    model, adapters, capacity = adapted(kind)
    together = [Asked(prompt(8), 9, adapter=name) for name in NAMES]
    assert capacity.fits(list(together))
    run(model, capacity, [Event(0, sequence) for sequence in together], adapters)
    assert [s.answer for s in together] == [expected(kind, name, 8)[:9] for name in NAMES]
    assert len({tuple(s.answer) for s in together}) == len(NAMES)


@pytest.mark.parametrize(
    ("kind", "why"), [("opt", "its layers flatten rows"), ("qwen2", "DoRA is no sum of outputs")]
)
def test_adapters_that_cannot_share_a_batch_take_turns(kind: str, why: str) -> None:
    """What cannot be exact in one batch is found out at load: one adapter runs at a time."""
    model, adapters, capacity = adapted(kind)
    first, second = (Asked(prompt(8), 9, adapter=name) for name in NAMES[1:])
    assert capacity.fits([first, copy.copy(first)]), why
    assert not capacity.fits([first, second]), why
    run(model, capacity, [Event(0, first), Event(0, second)], adapters)
    assert first.answer == expected(kind, "poet", 8)[:9]
    assert second.answer == expected(kind, "v1.2", 8)[:9]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "qwen2"])
@torch.inference_mode()
def test_the_base_is_unharmed(kind: str) -> None:
    """To the last bit, the base's logits are those of the model without adapters, also after
    they were used."""
    model, adapters, _ = adapted(kind)
    ids = torch.tensor([prompt(13)])
    adapters.use(["poet"])
    changed = model(ids).logits
    adapters.use([None])
    assert torch.equal(model(ids).logits, random_model(kind)(ids).logits)
    assert not torch.allclose(changed, model(ids).logits)


def test_half_precision_is_pefts_own(tmp_path: Path) -> None:
    """In bfloat16 too a request alone with its adapter gets PEFT's tokens."""
    model = random_model("llama").bfloat16()
    folder = save_adapter(random_model("llama"), tmp_path, seed=1)
    adapters = inject(model, {"poet": folder})
    asked = Asked(prompt(13), MAX_TOKENS, adapter="poet")
    run(model, Capacity(), [Event(0, asked)], adapters)
    right = generated_with(random_model("llama").bfloat16(), folder, prompt(13), MAX_TOKENS)
    assert asked.answer == right


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@torch.inference_mode()
def test_a_quantised_base(quantization: str, tmp_path: Path) -> None:
    """On a base in 8 or 4 bits rows with an adapter and without are batched, and each is told what
    PEFT tells it there alone, but for rounding: bitsandbytes multiplies in half precision."""
    wide = {"hidden_size": 64, "intermediate_size": 128}
    save("llama", tmp_path / "base", **wide)
    folder = save_adapter(random_model("llama", **wide), tmp_path / "poet", seed=1)

    def loaded(**more: Any) -> Loaded:
        return load(configured(tmp_path / "base", quantization=quantization, **more))

    found = loaded(adapters={"poet": str(folder)})
    assert found.capacity.mixes_adapters
    assert found.capacity.max_sequences > 1
    ids = torch.tensor([prompt(13)] * 2)
    base, poet = Decoder(found.model, found.adapters).forward(
        ids, torch.ones_like(ids), None, [None, "poet"]
    )[0]
    right = loaded().model(ids[:1]).logits[0, -1]
    adapted = PeftModel.from_pretrained(loaded().model, str(folder)).eval()
    limit = 0.25  # of their standard deviation
    assert agree(right, base, limit)
    assert agree(adapted(ids[:1]).logits[0, -1], poet, limit)
    assert not agree(base, poet, limit)
