"""A checkpoint's tensors taken apart, and what they take in memory."""

import json
from pathlib import Path

import pytest

from deployments.errors import StartError
from deployments.placement.demand import demand
from deployments.placement.header import read_header
from deployments.placement.source import from_folder
from deployments.placement.workload import Workload

from .tensors import llama, llama_config, llama_shapes, write_config, write_weights

MATRICES = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64
LAYER = MATRICES + 2 * 64


def test_parts(tmp_path: Path) -> None:
    """Each layer has its own tensors; embeddings, norm and head are around them."""
    weights = llama(tmp_path).weights
    assert [layer.stored_bytes for layer in weights.layers] == [2 * LAYER] * 8
    assert weights.outer.stored_bytes == 2 * (2 * 1000 * 64 + 64)
    assert weights.num_parameters == 8 * LAYER + 2 * 1000 * 64 + 64


def test_tied_heads_count_once(tmp_path: Path) -> None:
    """A head that is tied to the embeddings takes nothing, even if the file has it once more."""
    weights = llama(tmp_path, tie_word_embeddings=True).weights
    assert weights.outer.stored_bytes == 2 * (1000 * 64 + 64)


def test_what_transformers_drops_is_not_counted(tmp_path: Path) -> None:
    """Stored buffers, and layers beyond the config's, take no memory."""
    config = llama_config(num_hidden_layers=7)
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": (8,),
        "model.layers.0.attn.bias": (1, 1, 64, 64),
    }
    write_config(tmp_path, config)
    write_weights(tmp_path / "model.safetensors", llama_shapes(llama_config()) | extra)
    weights = from_folder(tmp_path).weights
    assert [layer.num_parameters for layer in weights.layers] == [LAYER] * 7


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_layers_that_the_config_does_not_name(prefix: str, tmp_path: Path) -> None:
    """They are told by their weights' names, those of bare decoders too; not so the layers that
    predict further tokens, where a config says that there are some."""
    config = llama_config(num_hidden_layers=7)
    shapes = llama_shapes(llama_config()) | {"model.layers.7.more.weight": (3,)}
    bare = {name.replace("model.", prefix, 1): shape for name, shape in shapes.items()}
    write_weights(tmp_path / "model.safetensors", bare)
    write_config(tmp_path, config)
    beyond = from_folder(tmp_path).weights.beyond
    assert len(beyond) == 9
    assert all(name.startswith(f"{prefix}layers.7.") for name in beyond)
    write_config(tmp_path, config | {"num_nextn_predict_layers": 1})
    assert from_folder(tmp_path).weights.beyond == ()


@pytest.mark.parametrize(
    ("quantization", "matrices"),
    [
        ("none", 2 * MATRICES),
        ("int8", MATRICES + 4 * (64 + 32 + 32 + 64 + 128 + 128 + 64)),
        # Half a byte each, a byte for each 64 of them, and bitsandbytes' tables.
        ("nf4", MATRICES // 2 + MATRICES // 64 + 7 * 4 * 273 + 4 * 7),
    ],
)
def test_quantized_bytes(tmp_path: Path, quantization: str, matrices: int) -> None:
    """The layers' matrices shrink; norms, embeddings and head stay as they are."""
    asked = demand(llama(tmp_path), quantization, Workload())
    assert asked.layers == (matrices + 2 * 2 * 64,) * 8
    assert asked.outer == 2 * (2 * 1000 * 64 + 64)
    assert asked.repacked is (quantization != "none")


def test_dtypes(tmp_path: Path) -> None:
    """Weights are counted in the type they are loaded in: the asked, the config's, the files'."""
    config = llama_config()
    write_weights(tmp_path / "model.safetensors", llama_shapes(config), "F32")
    write_config(tmp_path, config)
    assert from_folder(tmp_path).dtype == "bfloat16"
    assert demand(from_folder(tmp_path), "none", Workload()).layers[0] == 2 * LAYER
    assert demand(from_folder(tmp_path), "none", Workload()).repacked
    assert demand(from_folder(tmp_path, "float32"), "none", Workload()).layers[0] == 4 * LAYER
    assert not demand(from_folder(tmp_path, "float32"), "none", Workload()).repacked
    write_config(tmp_path, {k: v for k, v in config.items() if k != "torch_dtype"})
    assert from_folder(tmp_path).dtype == "float32"


def test_shards(tmp_path: Path) -> None:
    """A layer may be spread over files."""
    config = llama_config()
    shapes = [*llama_shapes(config).items()]
    write_config(tmp_path, config)
    write_weights(tmp_path / "a.safetensors", dict(shapes[:20]))
    write_weights(tmp_path / "b.safetensors", dict(shapes[20:]))
    index = {
        name: "a.safetensors" if n < 20 else "b.safetensors" for n, (name, _) in enumerate(shapes)
    }
    write_config_index(tmp_path, index)
    assert from_folder(tmp_path).weights.num_parameters == 8 * LAYER + 2 * 1000 * 64 + 64


def write_config_index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_layers_that_are_not_there_are_told(tmp_path: Path) -> None:
    """Weights without the config's layers cannot be planned."""
    write_config(tmp_path, llama_config(num_hidden_layers=9))
    write_weights(tmp_path / "model.safetensors", llama_shapes(llama_config()))
    with pytest.raises(StartError, match="no 9 numbered layers"):
        from_folder(tmp_path)


def test_ranges_are_those_of_the_file(tmp_path: Path) -> None:
    """A tensor's range has its bytes."""
    write_weights(tmp_path / "f", {"a": (3,), "b": (5, 2)}, "F32")
    a, b = read_header(tmp_path / "f")
    assert (a.num_bytes, b.num_bytes, b.start - a.start) == (12, 40, 12)
    assert (tmp_path / "f").stat().st_size == b.start + 40
