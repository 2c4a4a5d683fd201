"""What `memory` in the args does: where the weights go, what is refused, and that answers stay."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear8bitLt
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from deployments.errors import StartError
from deployments.huggingface.loading import accelerated
from deployments.huggingface.loading.loader import Loaded, load
from deployments.placement import machine
from deployments.placement.arrangement import CPU_LIBRARY_BYTES, DISK_SLOTS, Tier, slot_bytes
from deployments.placement.budget import Budget
from deployments.placement.demand import Demand, demand
from deployments.placement.planner import Question, make_plan
from deployments.placement.source import from_folder
from deployments.placement.workload import Workload

from .asking import COMPLETIONS, ask, configured, started
from .models import save_large

WORKLOAD = Workload(batch=2, context=64)
ASKED: Mapping[str, Any] = {"batch": 2, "context": 64}
SPARE_BYTES = 20 * 2**20  # two layers, and a little
pytestmark = pytest.mark.usefixtures("steady_ram")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with 94 MB of weights in ten layers."""
    return save_large(tmp_path_factory.mktemp("large"))


@pytest.fixture(scope="module")
def needs(large: Path) -> Demand:
    return demand(from_folder(large, "float32"), "none", WORKLOAD)


def streamed_bytes(needs: Demand) -> int:
    """A budget in which some layers are resident, and most are not."""
    fixed = needs.outer + needs.working.total_bytes + DISK_SLOTS * slot_bytes(needs)
    return machine.own_ram_bytes() + CPU_LIBRARY_BYTES + fixed + SPARE_BYTES


def loaded(folder: Path, **memory: Any) -> Loaded:
    return load(configured(folder, memory={**ASKED, **memory}))


def num_on_meta(model: Any) -> int:
    return sum(weight.is_meta for weight in model.parameters())


def test_what_fits_is_resident(large: Path, tmp_path: Path) -> None:
    """With room for all weights none stay on disk, and the rest of the budget is for tokens."""
    asked = {"cpu": machine.own_ram_bytes() + 400 * 2**20, "disk": str(tmp_path)}
    found = loaded(large, **asked)
    assert num_on_meta(found.model) == 0
    assert found.capacity.max_batch_tokens > WORKLOAD.batch * WORKLOAD.context


def test_what_does_not_fit_is_refused_with_what_would(large: Path, needs: Demand) -> None:
    """Without a disk, a model that is too large is refused before it is loaded, with a budget."""
    with pytest.raises(StartError) as refused:
        loaded(large, cpu=streamed_bytes(needs))
    assert "resident: needs" in refused.value.message
    assert "The smallest budget for batch 2 and context 64 is" in refused.value.message


def test_streaming_off(large: Path, needs: Demand, tmp_path: Path) -> None:
    """`streaming: off` lets no weights wait on disk."""
    with pytest.raises(StartError, match="does not fit"):
        loaded(large, cpu=streamed_bytes(needs), disk=str(tmp_path), streaming="off")


async def test_accelerate_from_disk(large: Path, needs: Demand, tmp_path: Path) -> None:
    """What does not fit stays on disk, and answers are those of the resident model."""
    asked: dict[str, Any] = {"prompt": "abc", "temperature": 0, "max_tokens": 4, "logprobs": 2}
    async with started(large) as backend:
        expected = await ask(backend, COMPLETIONS, **asked)
    memory = {**ASKED, "disk": str(tmp_path), "streaming": "accelerate"}
    async with started(large, memory={**memory, "cpu": streamed_bytes(needs)}) as backend:
        model = backend.engine._scheduler._decoder._model
        assert num_on_meta(model) >= 9 * 5
        got = await ask(backend, COMPLETIONS, **asked)
        assert got.body["choices"] == expected.body["choices"]


def test_quantised_where_it_must_be(large: Path, needs: Demand, tmp_path: Path) -> None:
    """`quantization: auto` leaves weights that fit as they are, and quantises those that do not."""
    budget = {"cpu": machine.own_ram_bytes() + 400 * 2**20, "disk": str(tmp_path), **ASKED}
    assert not isinstance(linear(large, budget), Linear8bitLt)
    half = machine.own_ram_bytes() + CPU_LIBRARY_BYTES + sum(needs.layers) * 3 // 4
    assert isinstance(linear(large, budget | {"cpu": half}), Linear8bitLt)


def linear(folder: Path, memory: dict[str, Any]) -> Any:
    found = load(configured(folder, memory=memory, quantization="auto"))
    return found.model.model.layers[0].mlp.up_proj


def test_accelerate_does_not_quantise_on_a_cpu(large: Path) -> None:
    """int8 of weights that accelerate brings from disk is refused by name, before loading."""
    model = from_folder(large, "float32")
    budget = Budget(0, 10**9, 2**30, base_bytes=0)
    plan = make_plan(Question(model, WORKLOAD, budget, ("int8",), (Tier.DISK,)))
    assert plan.streams
    with pytest.raises(StartError, match="int8 with streaming: accelerate cannot work on a CPU"):
        accelerated.load(None, large, configured(large, quantization="int8"), plan)


@pytest.mark.parametrize("fails", [False, True])
def test_the_largest_step_is_tried_before_ready(fails: bool, large: Path) -> None:
    """A step of the planned batch, and a chunk of the planned context, are taken while the model
    is loaded; one that there is no memory for ends the start."""
    step, chunk, seen = (7, 1), (1, 37), set[tuple[int, ...]]()

    def look(module: nn.Module, args: Any) -> None:
        if isinstance(module, nn.Embedding):
            seen.add(tuple(args[0].shape))
            if fails and seen >= {step}:
                raise torch.OutOfMemoryError("no memory")

    asked = {"batch": step[0], "context": chunk[1]}
    hook = register_module_forward_pre_hook(look)
    try:
        if fails:
            with pytest.raises(StartError, match=r"could not be loaded.*no memory"):
                loaded(large, **asked)
        else:
            loaded(large, **asked)
    finally:
        hook.remove()
    assert {step, chunk} <= seen


def test_without_memory_the_weights_must_fit(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine with a tight limit a model without `memory` is refused, not killed later."""
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory.max").write_text(str(32 * 2**20))
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    with pytest.raises(StartError, match=r"resident: needs .* of RAM, there is"):
        load(configured(large))
