"""What is found wrong with an adapter's folder before anything is started."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from deployments.adapters import check_shapes
from deployments.config import VLLMConfig
from deployments.errors import ModelNotFound, StartError
from deployments.exchange import Exchange
from deployments.vllm_engine.args import server_args
from deployments.vllm_engine.backend import VLLMBackend
from serve_app.check.inventory import read

LAYER = "model.layers.0.self_attn.q_proj"

pytestmark = pytest.mark.filterwarnings("ignore")  # of vLLM and torch, when they are imported


def adapter(folder: Path, num_inputs: int = 8, rank: int = 4, layer: str = LAYER) -> Path:
    folder.mkdir()
    config = {"peft_type": "LORA", "r": rank, "rank_pattern": {"k_proj": 2 * rank}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    down = np.zeros((rank, num_inputs), dtype=np.float32)
    tensors = {f"base_model.model.{layer}.lora_A.weight": down}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    tensors = {f"{LAYER}.weight": np.zeros((6, 8), dtype=np.float32)}
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_shapes(checkpoint: Path, tmp_path: Path) -> None:
    """An adapter of a model of other sizes or layers is refused by its headers."""
    check_shapes("mine", adapter(tmp_path / "a"), checkpoint)
    with pytest.raises(StartError, match="16 inputs there, and 8 here"):
        check_shapes("mine", adapter(tmp_path / "b", num_inputs=16), checkpoint)
    with pytest.raises(StartError, match=r"which has no h\.0"):
        check_shapes("mine", adapter(tmp_path / "c", layer="h.0.attn"), checkpoint)


@pytest.mark.parametrize(
    ("path", "said"), [("/no/such", "does not exist"), ("checkpoint", "no adapter_config.json")]
)
async def test_vllm_says_at_once(checkpoint: Path, path: str, said: str) -> None:
    """With vLLM too a folder that is no adapter's is said before anything is started."""
    found = str(checkpoint.parent / path)
    config = VLLMConfig(checkpoint=str(checkpoint), adapters={"mine": found})
    with pytest.raises(StartError, match=said):
        await VLLMBackend("m", config).start()


async def test_vllm_does_not_pad_an_adapter(checkpoint: Path, tmp_path: Path) -> None:
    """vLLM would take an adapter of smaller layers; it is refused."""
    wrong = str(adapter(tmp_path / "a", num_inputs=4))
    config = VLLMConfig(checkpoint=str(checkpoint), adapters={"mine": wrong})
    with pytest.raises(StartError, match="does not fit"):
        await VLLMBackend("m", config).start()


def test_vllm_options(checkpoint: Path, tmp_path: Path) -> None:
    """vLLM gets the adapters under the ids that clients use, and room for their largest rank."""
    adapters = {"a.1": str(adapter(tmp_path / "a", rank=9)), "b": str(adapter(tmp_path / "b"))}
    config = VLLMConfig(checkpoint=str(checkpoint), adapters=adapters)
    args = server_args(str(checkpoint), "m", config)
    assert [(module.name, module.path) for module in args.lora_modules] == [
        ("m:a.1", adapters["a.1"]),
        ("m:b", adapters["b"]),
    ]
    assert (args.enable_lora, args.max_lora_rank) == (True, 32)
    assert args.max_loras >= 2
    assert not server_args(str(checkpoint), "m", VLLMConfig(checkpoint="/m")).enable_lora


async def test_vllm_adapter_that_is_gone(checkpoint: Path) -> None:
    """The base does not answer for an adapter that it does not have."""
    backend = VLLMBackend("m", VLLMConfig(checkpoint=str(checkpoint), adapters={"a": "/a"}))
    assert backend.card().models == ("m", "m:a")
    with pytest.raises(ModelNotFound):
        await anext(backend.exchange(Exchange("/v1/chat/completions", b"{}", "r", "m:b")))


def test_check_knows_the_adapters() -> None:
    """`roundhouse check` takes adapters' ids for models that aliases may mean."""
    app = {"name": "m", "import_path": "serve_app.app:model", "args": {"adapters": {"a": "/a"}}}
    inventory = read({"applications": [app]})
    assert inventory is not None
    assert inventory.model_ids() == {"m", "m:a"}
