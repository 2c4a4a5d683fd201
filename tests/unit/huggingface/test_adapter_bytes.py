"""What the plan counts for adapters, against what PEFT really holds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from deployments.huggingface.adapters.loading import inject
from deployments.placement.adapters import adapter_bytes
from deployments.placement.arrangement import Tier, least
from deployments.placement.budget import Budget
from deployments.placement.demand import demand
from deployments.placement.source import from_folder
from deployments.placement.workload import Workload

from .architectures import random_model, save
from .lora import save_adapter

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")  # of training, and of hub ids


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_are_counted(dtype: torch.dtype, tmp_path: Path) -> None:
    """The plan has room for the adapters, to the byte, whatever type model and files have."""
    save("llama", tmp_path)
    folders = {
        name: save_adapter(random_model("llama").to(dtype), tmp_path / name, seed=seed)
        for seed, name in enumerate("ab")
    }
    model: Any = random_model("llama").to(dtype)
    before = {id(weight) for weight in model.parameters()}
    inject(model, folders)
    added = [weight for weight in model.parameters() if id(weight) not in before]
    held = sum(weight.numel() * weight.element_size() for weight in added)
    assert held == sum(map(adapter_bytes, folders.values())) > 0
    bare = from_folder(tmp_path)
    for tier in Tier:
        needs = [
            least(demand(asked, "none", Workload()), tier, Budget(0, 10**9, 10**9)).cpu_bytes
            for asked in (bare, replace(bare, adapter_bytes=held))
        ]
        assert needs[1] - needs[0] == held
