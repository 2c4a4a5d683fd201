"""The part of a GPU that a Hugging Face model shares, as torch is told it."""

import types
from typing import Any

import pytest
import torch

from deployments.config import HuggingFaceConfig
from deployments.errors import StartError
from deployments.huggingface.backend import _run


@pytest.mark.parametrize(
    ("args", "limits"), [({"gpu_share": 0.5}, [0.5 - 2**29 / 80e9]), ({"num_gpus": 1}, [])]
)
def test_the_share_is_set_before_anything_is_allocated(
    args: dict[str, Any], limits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch is told how much of a shared GPU it may take before weights are read, and is told
    nothing where the GPU is its own. (The device is made up: it has 80 GB and no driver.)"""
    said: list[float | str] = []
    properties = types.SimpleNamespace(total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", said.append)
    config = HuggingFaceConfig(checkpoint="package:demo/model", **args)
    with pytest.raises(StartError, match="could not be loaded"):  # at the first tensor on it
        _run(config, lambda progress: said.append(progress.stage))
    limited, reading = said[: len(limits)], said[len(limits) :]
    assert limited == pytest.approx(limits)
    assert reading[0] == "reading the tokenizer"
