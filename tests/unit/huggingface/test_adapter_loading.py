"""Adapters that cannot be served are said at load, before the weights are read."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from deployments.errors import ModelNotFound, StartError
from deployments.exchange import Exchange
from deployments.huggingface.backend import HuggingFaceBackend
from deployments.huggingface.loading.loader import load
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving

from .architectures import random_model
from .asking import COMPLETIONS, configured, started
from .lora import save_adapter

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")  # of training, and of hub ids


@pytest.fixture(scope="module")
def adapter(random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = AutoModelForCausalLM.from_pretrained(random_checkpoint)
    return save_adapter(model, tmp_path_factory.mktemp("adapter"), seed=1)


def reason(checkpoint: Path, adapter: Path | str) -> str:
    with pytest.raises(StartError) as failed:
        load(configured(checkpoint, adapters={"mine": str(adapter)}))
    assert "adapter mine" in failed.value.message
    return failed.value.message


def changed(adapter: Path, folder: Path, **fields: object) -> Path:
    """A copy with other fields in its config."""
    for file in adapter.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((adapter / "adapter_config.json").read_bytes())
    (folder / "adapter_config.json").write_text(json.dumps(config | fields))
    return folder


def test_a_wrong_path(random_checkpoint: Path, tmp_path: Path) -> None:
    """A folder that is not there, or is no adapter's, is said to be so."""
    assert "does not exist" in reason(random_checkpoint, tmp_path / "none")
    assert "no adapter_config.json" in reason(random_checkpoint, tmp_path)


def test_missing_weights(random_checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    """Weights that are not there or cut short are said, and not looked for on the hub."""
    broken = changed(adapter, tmp_path)
    weights = broken / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(StartError, match="truncated"):
        load(configured(random_checkpoint, adapters={"mine": str(broken)}))
    weights.unlink()
    assert "no adapter_model.safetensors" in reason(random_checkpoint, broken)


def test_pickles_on_request(random_checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    """A pickled adapter is loaded where the operator allows it, and only there."""
    pickled = changed(adapter, tmp_path)
    weights = load_file(pickled / "adapter_model.safetensors")
    (pickled / "adapter_model.safetensors").unlink()
    torch.save(weights, pickled / "adapter_model.bin")
    assert "allow_pickle: true" in reason(random_checkpoint, pickled)
    settings = {"adapters": {"mine": str(pickled)}, "allow_pickle": True}
    loaded = load(configured(random_checkpoint, **settings))
    assert loaded.adapters is not None
    assert loaded.adapters.names == ("mine",)


@pytest.mark.parametrize(
    "fields",
    [
        {"peft_type": "IA3"},
        {"bias": "all"},
        {"init_lora_weights": "pissa_niter_4"},
        {"layer_replication": [[0, 2], [1, 2]]},
        {"alora_invocation_tokens": [1, 2]},
    ],
    ids=str,
)
def test_what_would_harm_the_base_is_refused(
    random_checkpoint: Path, adapter: Path, tmp_path: Path, fields: dict[str, object]
) -> None:
    """An adapter that changes the base's own weights, or is no LoRA, is refused by name."""
    said = reason(random_checkpoint, changed(adapter, tmp_path, **fields))
    assert str(next(iter(fields.values()))) in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hidden_size": 48}, "size mismatch"),
        ({"num_hidden_layers": 3}, "no part of the model"),
        ({"num_hidden_layers": 1}, "lacks"),
    ],
    ids=str,
)
def test_an_adapter_of_another_base(
    random_checkpoint: Path, tmp_path: Path, settings: dict[str, int], said: str
) -> None:
    """An adapter of other shapes, of fewer or of more layers is refused before weights are read."""
    config = json.loads((random_checkpoint / "config.json").read_bytes()) | settings
    other = AutoModelForCausalLM.from_config(
        AutoModelForCausalLM.from_pretrained(random_checkpoint).config.from_dict(config)
    )
    wrong = save_adapter(other, tmp_path / "adapter", seed=1, target_modules=["q_proj"])
    base = tmp_path / "base"
    base.mkdir()
    for file in random_checkpoint.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    (base / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")  # of no weights
    assert said in reason(base, wrong)


def test_an_adapter_of_another_architecture(random_checkpoint: Path, tmp_path: Path) -> None:
    """An adapter for layers that the model does not have is refused."""
    wrong = save_adapter(random_model("gpt2"), tmp_path, seed=1, target_modules=["c_attn"])
    assert "c_attn" in reason(random_checkpoint, wrong)


@pytest_asyncio.fixture
async def backend(random_checkpoint: Path, adapter: Path) -> AsyncIterator[HuggingFaceBackend]:
    async with started(random_checkpoint, adapters={"mine": str(adapter)}) as backend:
        yield backend


async def test_each_adapter_is_a_model(backend: HuggingFaceBackend) -> None:
    """Through the router each adapter is listed and answers under its own id, and the base under
    the model's; an adapter that is not there is a 404."""
    assert backend.card().models == ("tiny", "tiny:mine")
    async with (
        serving(RouterApp(LocalCluster({"tiny": backend}))) as url,
        openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key="-", max_retries=0, _strict_response_validation=True
        ) as client,
    ):
        assert {model.id async for model in client.models.list()} == {"tiny", "tiny:mine"}
        texts = {}
        for name in ("tiny", "tiny:mine"):
            said = await client.completions.create(
                model=name, prompt="abc", temperature=0, max_tokens=9
            )
            assert said.model == name
            texts[name] = said.choices[0].text
        assert texts["tiny"] != texts["tiny:mine"]
        with pytest.raises(openai.NotFoundError):
            await client.completions.create(model="tiny:other", prompt="abc")


async def test_an_adapter_that_is_gone(backend: HuggingFaceBackend) -> None:
    """A router that is behind a redeployment gets an error, and not the base's answer."""
    with pytest.raises(ModelNotFound):
        await anext(backend.exchange(Exchange(COMPLETIONS, b"{}", "r", "tiny:gone")))
