"""What the streamer refuses comes by accelerate's hooks."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.unit.huggingface.asking import COMPLETIONS, ask, started

from .test_served import large, memory, texts

__all__ = ["large"]
pytestmark = pytest.mark.usefixtures("steady_ram")

# A Llama whose layers stand in no list.
CODE = """
from torch import nn
from transformers import LlamaForCausalLM


class Stack(nn.Module):
    def __init__(self, layers):
        super().__init__()
        for number, layer in enumerate(layers):
            self.add_module(str(number), layer)

    def __getitem__(self, index):
        return list(self.children())[index]


class StackedForCausalLM(LlamaForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        self.model.layers = Stack(self.model.layers)
"""


@pytest.fixture
def stacked(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of an architecture that the streamer does not know its way in."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    config = json.loads((large / "config.json").read_text())
    config["architectures"] = ["StackedForCausalLM"]
    config["auto_map"] = {"AutoModelForCausalLM": "stacked.StackedForCausalLM"}
    (large / "config.json").write_text(json.dumps(config))
    (large / "stacked.py").write_text(CODE)
    return large


async def test_accelerate_takes_over(stacked: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The model answers as it does when it is resident, from weights that stay on disk, and a
    warning says why it is slow."""
    asked: dict[str, Any] = {"prompt": "abc", "temperature": 0, "max_tokens": 4}
    async with started(stacked, trust_remote_code=True) as backend:
        expected = await ask(backend, COMPLETIONS, **asked)
    with caplog.at_level(logging.WARNING):
        async with started(stacked, trust_remote_code=True, memory=memory(stacked)) as backend:
            model = backend.engine._scheduler._decoder._model
            assert not hasattr(model, "streamer")
            assert sum(weight.is_meta for weight in model.parameters()) > 10
            assert texts(await ask(backend, COMPLETIONS, **asked)) == texts(expected)
    assert "is streamed by accelerate, which is slower: StackedForCausalLM has no list of 10" in (
        caplog.text
    )
