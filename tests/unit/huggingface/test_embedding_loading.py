"""What is embedded and how is read from the checkpoint, and refused where it cannot be done."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertModel

from deployments.errors import StartError
from deployments.huggingface.embedding.encoder import Encoder
from deployments.huggingface.embedding.loading import (
    batch_tokens,
    load_embedder,
    probes_of,
)
from deployments.huggingface.embedding.task import task_of
from deployments.progress import unreported

from .asking import configured
from .embedders import normalize, save_bare, save_embedder

pytestmark = pytest.mark.filterwarnings("ignore")  # of what sentence-transformers saves


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"architectures": ["BertModel"], "model_type": "bert"}, "embed"),
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "embed"),
        ({"architectures": ["MPNetModel"], "model_type": "mpnet"}, "embed"),
        ({"architectures": ["T5EncoderModel"], "model_type": "t5"}, "embed"),
        ({"architectures": ["NomicBertModel"], "model_type": "nomic_bert"}, "embed"),
        (
            {"architectures": ["MistralModel"], "model_type": "mistral"}
            | {"tie_word_embeddings": False},
            "embed",
        ),
        ({"architectures": ["BloomModel"], "model_type": "bloom"}, "generate"),
        ({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}, "generate"),
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "generate"),
        ({"architectures": ["MPTForCausalLM"], "model_type": "mpt"}, "generate"),
        ({"model_type": "llama"}, "generate"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_task(tmp_path: Path, config: dict[str, Any], task: str) -> None:
    """What has a language model's head generates, what has none embeds; sentence-transformers'
    modules always embed, and the operator's word goes before all."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert task_of(tmp_path, configured(tmp_path)) == task
    (tmp_path / "modules.json").write_text("[]")
    assert task_of(tmp_path, configured(tmp_path)) == "embed"
    assert task_of(tmp_path, configured(tmp_path, task="generate")) == "generate"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_embedder("bert", tmp_path_factory.mktemp("bert"), "mean", normalize())


def changed(saved: Path, folder: Path, file: str, content: Any) -> Path:
    for source in saved.rglob("*"):
        if source.is_file():
            target = folder / source.relative_to(saved)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(source.read_bytes())
    (folder / file).write_text(json.dumps(content))
    return folder


ST = "sentence_transformers.models."
FIRST = {"idx": 0, "name": "0", "path": "", "type": f"{ST}Transformer"}
SECOND = {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{ST}Pooling"}
DENSE = {"idx": 2, "name": "2", "path": "2_Dense", "type": f"{ST}Dense"}


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("modules.json", [FIRST], "begin with a Transformer and a Pooling"),
        ("modules.json", [FIRST, SECOND, DENSE | {"type": f"{ST}LSTM"}], "LSTM"),
        ("modules.json", [FIRST | {"type": "their.code.Transformer"}, SECOND], "their.code"),
        ("modules.json", {}, "not a list"),
        ("1_Pooling/config.json", {"pooling_mode": "magic"}, "pools by magic"),
        ("1_Pooling/config.json", [], "damaged"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "fill-mask"),
        ("config.json", {"model_type": "bert", "hidden_size": 48}, "config.json"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_refused(saved: Path, tmp_path: Path, file: str, content: Any, said: str) -> None:
    """A module that this backend does not know is refused by name, not left out."""
    broken = changed(saved, tmp_path, file, content)
    with pytest.raises(StartError, match=said):
        load_embedder(broken, configured(broken), unreported)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"activation_function": "their.code.Swish"}, "not torch's"),
        ({"use_residual": True}, "use_residual"),
    ],
)
def test_dense_layers_that_are_refused(
    saved: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    """No code that a checkpoint names is run, and no part of a layer is left out."""
    broken = changed(saved, tmp_path, "modules.json", [FIRST, SECOND, DENSE])
    (broken / "2_Dense").mkdir()
    settings = {"in_features": 32, "out_features": 4, "bias": False} | settings
    (broken / "2_Dense" / "config.json").write_text(json.dumps(settings))
    from safetensors.torch import save_file

    save_file({"linear.weight": torch.zeros(4, 32)}, broken / "2_Dense" / "model.safetensors")
    with pytest.raises(StartError, match=said):
        load_embedder(broken, configured(broken), unreported)


def test_weights_that_are_missing(tmp_path: Path) -> None:
    """A model without its pooler, which no vector needs, is served; one without a layer is not."""
    folder = save_bare("bert", tmp_path)
    model = BertModel.from_pretrained(folder)
    kept = {name: w for name, w in model.state_dict().items() if "pooler" not in name}
    model.save_pretrained(folder, state_dict=kept)
    assert load_embedder(folder, configured(folder), unreported).model.size == 32
    kept = {name: w for name, w in kept.items() if "layer.1." not in name}
    model.save_pretrained(folder, state_dict=kept)
    with pytest.raises(StartError, match="lacks"):
        load_embedder(folder, configured(folder), unreported)


class MixesRows(BertModel):
    """Lets each row see a little of the others."""

    def forward(self, **inputs: Any) -> Any:
        output = super().forward(**inputs)
        output.last_hidden_state = output.last_hidden_state + 0.1 * output[0].sum(0, keepdim=True)
        return output


def test_what_cannot_be_batched_runs_alone(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model that lets texts see each other is found out at load, and given one at a time."""
    config = configured(saved)
    assert load_embedder(saved, config, unreported).max_batch_tokens > 1
    model = MixesRows.from_pretrained(saved).eval()
    encoder = Encoder(model, nn.Identity(), ("mean",))
    with caplog.at_level(logging.WARNING):
        assert batch_tokens(encoder, model, probes_of(264, 99), config) == 1
    assert "MixesRows does not give the same" in caplog.text
