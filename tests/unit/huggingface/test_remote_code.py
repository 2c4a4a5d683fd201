"""Checkpoints whose architecture comes with them, as Python code."""

import json
import logging
from pathlib import Path

import pytest
import torch

from deployments.errors import StartError
from deployments.huggingface.loading.loader import load

from .asking import COMPLETIONS, ask, configured, started

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path("{mark}").touch()

class OwnConfig(LlamaConfig):
    model_type = "roundhouse_own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""

TOKENS = """
from transformers import PreTrainedTokenizerFast

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What the checkpoint's code makes, if it is run."""
    return tmp_path / "mark"


@pytest.fixture
def checkpoint(
    random_checkpoint: Path, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The random model as an architecture that transformers does not know."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    folder = tmp_path / "own"
    folder.mkdir()
    for file in random_checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "roundhouse_own"
    config["architectures"] = ["OwnForCausalLM"]
    config["auto_map"] = {
        "AutoConfig": "own.OwnConfig",
        "AutoModelForCausalLM": "own.OwnForCausalLM",
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["tokens.OwnTokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "tokens.py").write_text(TOKENS)
    (folder / "own.py").write_text(CODE.format(mark=mark))
    return folder


def has_run(mark: Path) -> bool:
    return mark.exists()


def test_code_is_not_run_unless_it_is_allowed(checkpoint: Path, mark: Path) -> None:
    """Without `trust_remote_code` the start ends, naming it, and nothing was run."""
    with pytest.raises(StartError, match="trust_remote_code") as refused:
        load(configured(checkpoint))
    assert str(checkpoint) in refused.value.message
    assert "\n" not in refused.value.message  # operators are shown a last line
    assert not has_run(mark)


async def test_code_that_is_allowed_is_named_in_the_log(
    checkpoint: Path, random_checkpoint: Path, mark: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With it the checkpoint's own class is served, and the log says whose code that is."""
    asked = {"prompt": "ab", "temperature": 0, "max_tokens": 20}
    with caplog.at_level(logging.WARNING, "deployments"):
        async with started(checkpoint, trust_remote_code=True) as backend:
            got = await ask(backend, COMPLETIONS, **asked)
    assert has_run(mark)
    assert f"Running code that comes with the checkpoint {checkpoint}" in caplog.text
    assert "trust_remote_code allows: own.py, tokens.py" in caplog.text
    async with started(random_checkpoint) as backend:
        assert (await ask(backend, COMPLETIONS, **asked)).body["choices"] == got.body["choices"]


def test_trust_is_not_told_where_there_is_no_code(
    random_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A model of transformers' own needs no trust, whatever the args say."""
    with caplog.at_level(logging.WARNING, "deployments"):
        model = load(configured(random_checkpoint, trust_remote_code=True)).model
    assert "Running code" not in caplog.text
    assert model.dtype == torch.float32
