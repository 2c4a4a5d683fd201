import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from deployments.errors import StartError
from deployments.huggingface.loading.loader import load

from .asking import configured
from .models import byte_tokenizer


@pytest.fixture
def checkpoint(random_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of a good checkpoint, to be damaged."""
    for file in random_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def reason(checkpoint: Path | str, **settings: object) -> str:
    with pytest.raises(StartError) as failed:
        load(configured(checkpoint, **settings))
    return failed.value.message


def remove_tokenizer(folder: Path) -> None:
    for file in folder.glob("token*"):
        file.unlink()


def list_a_missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = {"weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def truncate_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:50])


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def spoil_header(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[8:20] = b"\xff" * 12
    (folder / "model.safetensors").write_bytes(content)


def nest_header(folder: Path) -> None:
    deep = b"[" * 100_000
    (folder / "model.safetensors").write_bytes(len(deep).to_bytes(8, "little") + deep)


def leave_an_lfs_pointer(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "model.safetensors").write_text(pointer)


def keep_pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def spoil_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def nest_config(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


def add_a_layer(folder: Path) -> None:
    configure(folder, num_hidden_layers=3, layer_types=None)


def forget_a_layer(folder: Path) -> None:
    configure(folder, num_hidden_layers=1, layer_types=None)


def configure(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def spoil_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][:] = torch.nan
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (spoil_config, "config.json is truncated or damaged"),
        (nest_config, "config.json is truncated or damaged"),
        (remove_tokenizer, "has no tokenizer"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (keep_pickle_only, "pickle files"),
        (list_a_missing_shard, "lacks .*model-00002-of-00002.safetensors"),
        (truncate, "is truncated or damaged: it has .* bytes where its header says"),
        (truncate_header, "fewer than its header needs"),
        (empty_weights, "fewer than its header needs"),
        (spoil_header, "unreadable header"),
        (nest_header, "unreadable header"),
        (leave_an_lfs_pointer, "git lfs pull"),
        (forget_a_layer, "9 weights of layers that its config.json does not name"),
        (add_a_layer, "lacks 9 of the model's weights"),
        (
            lambda folder: configure(folder, num_hidden_layers=10**9, layer_types=None),
            "names 1000000000 layers",
        ),
        (
            lambda folder: configure(folder, intermediate_size=64),
            r"down_proj.weight is \[32, 48\] where \[32, 64\] is wanted",
        ),
        (lambda folder: configure(folder, model_type="nonesuch"), "model type `nonesuch`"),
        (lambda folder: configure(folder, model_type="clip"), "of the type clip, which does not"),
        (
            lambda folder: configure(folder, architectures=["LlamaForSequenceClassification"]),
            "is LlamaForSequenceClassification, which does not generate text",
        ),
        (lambda folder: configure(folder, num_attention_heads=0), "could not be loaded"),
        (lambda folder: configure(folder, hidden_size="large"), "hidden_size"),
        (spoil_a_weight, "gives no numbers as torch.float32"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "The tokenizer of the"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "The tokenizer of the"),
    ],
)
def test_damage_is_named(checkpoint: Path, damage: Callable[[Path], None], says: str) -> None:
    """Whatever is wrong with a checkpoint, the operator reads which file it is, and what to do."""
    damage(checkpoint)
    message = reason(checkpoint)
    assert re.search(says, message)
    assert str(checkpoint) in message


@pytest.mark.parametrize("streaming", ["auto", "accelerate", "off"])
def test_layers_that_would_be_left_out(checkpoint: Path, streaming: str, tmp_path: Path) -> None:
    """Files with more layers than the config names are refused by the same words however the
    weights would reach the model, before any are read."""
    forget_a_layer(checkpoint)
    memory = {"cpu": "1MiB", "disk": str(tmp_path), "streaming": streaming}
    assert reason(checkpoint, memory=memory) == reason(checkpoint)


def test_missing_folders_are_named() -> None:
    """A path that is not there says so, and is not looked for on the hub."""
    assert reason("/no/such/folder").startswith("The checkpoint /no/such/folder does not exist.")
    assert "does not exist" in reason("./no/such")
    assert "does not exist" in reason("package:no/such")


def test_missing_hub_ids_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub id that cannot be had offline is an operator's error that names what to check."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = reason("nobody/nothing-of-this-name")
    assert "nobody/nothing-of-this-name" in message
    assert "HF_HUB_OFFLINE" in message


def test_encoder_decoders_are_refused_by_name(tmp_path: Path) -> None:
    """An encoder-decoder is refused before it is loaded."""
    config = T5Config(vocab_size=260, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    assert "T5ForConditionalGeneration: an encoder-decoder" in reason(tmp_path)


def test_models_without_a_cache_of_keys_are_refused(tmp_path: Path) -> None:
    """An architecture that the engine cannot step through fails at start, by name."""
    config = MambaConfig(vocab_size=260, hidden_size=8, state_size=4, num_hidden_layers=1)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    assert "MambaForCausalLM: it keeps no key-value cache" in reason(tmp_path)


def test_settings_that_cannot_be_met(checkpoint: Path) -> None:
    """A longer context than the model's, and a bad template, are refused."""
    assert "more than the 256 tokens" in reason(checkpoint, max_model_len=257)
    assert "cannot be read" in reason(checkpoint, chat_template="/no/such.jinja")
    (checkpoint / "bad.jinja").write_text("{% for %}")
    assert "not valid Jinja" in reason(checkpoint, chat_template=str(checkpoint / "bad.jinja"))


def test_failures_are_found_without_torch() -> None:
    """A wrong path fails in an instant: torch is not even imported."""
    code = (
        "import sys\n"
        "from deployments.config import HuggingFaceConfig\n"
        "from deployments.errors import StartError\n"
        "from deployments.huggingface.loading.loader import load\n"
        "try: load(HuggingFaceConfig(checkpoint='/no/such'))\n"
        "except StartError: sys.exit('torch' in sys.modules)\n"
        "sys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_max_model_len_can_be_lowered(checkpoint: Path) -> None:
    """The operator may allow less context than the model has."""
    assert load(configured(checkpoint, max_model_len=99)).text_model.limits.max_model_len == 99
    assert load(configured(checkpoint)).text_model.limits.max_model_len == 256
