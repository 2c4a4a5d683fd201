"""From a checkpoint's name to what can be planned: a folder, the hub's cache, or the hub itself.

Of the files, config.json and the safetensors headers are read; of the hub, the same by ranges.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployments.errors import StartError
from deployments.placement.demand import Model
from deployments.placement.geometry import Geometry, read_geometry
from deployments.placement.header import StoredTensor, damaged, read_header
from deployments.placement.weights import DTYPES, Weights, sort_weights

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
NAMES_OF_DTYPES = {name: dtype for dtype, name in DTYPES.items()}


def model_of(
    name: str, config: Mapping[str, Any], tensors: list[StoredTensor], dtype: str = "auto"
) -> Model:
    """A checkpoint as far as planning goes. Raises: StartError for one that cannot be planned."""
    geometry = read_geometry(config)
    weights = sort_weights(tensors, geometry)
    return Model(name, geometry, weights, _dtype(geometry, weights, dtype))


def from_folder(folder: Path, dtype: str = "auto") -> Model:
    """The checkpoint in a folder. Without weights there, its config alone must do.

    Raises: StartError.
    """
    config = _read_json(folder / "config.json")
    files = _files(folder)
    if not files:
        return model_of(folder.name, config, from_config(folder), dtype)
    for file in files:
        if not file.is_file():
            raise StartError(f"The checkpoint lacks {file}, which {INDEX} lists.")
    tensors = [tensor for file in files for tensor in read_header(file)]
    return model_of(folder.name, config, tensors, dtype)


def _files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        shards = _read_json(folder / INDEX).get("weight_map")
        if isinstance(shards, dict):
            return [folder / name for name in sorted(set(map(str, shards.values())))]
        raise damaged(folder / INDEX, "lists no weights")
    return [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else []


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise StartError(
            f"The checkpoint {path.parent} has no {path.name}: it is not a model in the Hugging "
            "Face format."
        ) from None
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise damaged(path, "is not a JSON object")
    return content


def _dtype(geometry: Geometry, weights: Weights, asked: str) -> str:
    """What transformers would load it in."""
    if asked != "auto":
        return asked
    if geometry.dtype in DTYPES:
        return str(geometry.dtype)
    return NAMES_OF_DTYPES.get(weights.stored_dtype, "float32")


def from_hub(repo: str) -> tuple[dict[str, Any], list[StoredTensor]]:
    """The config and the headers of a checkpoint that is not here, without downloading it.

    Raises: StartError.
    """
    from httpx2 import TransportError
    from huggingface_hub import HfApi, hf_hub_download, hf_hub_url

    try:
        # Asked once: what follows asks six times, and waits 23 s for a network that is not there.
        HfApi().get_hf_file_metadata(url=hf_hub_url(repo, "config.json"))
        config = json.loads(Path(hf_hub_download(repo, "config.json")).read_bytes())
        files = HfApi().get_safetensors_metadata(repo).files_metadata
    except (OSError, ValueError, TransportError) as exc:  # the bases of all of the hub's errors
        raise StartError(
            f"The checkpoint {repo} is neither a folder here nor could its headers be had from the "
            f"Hugging Face hub ({type(exc).__name__}). Check the name, the network, HF_HUB_OFFLINE "
            "and, for a gated model, HF_TOKEN."
        ) from exc
    return config, [
        StoredTensor(
            name, info.dtype, tuple(info.shape), Path(file), info.data_offsets[0],
            info.data_offsets[1] - info.data_offsets[0],
        )
        for file, metadata in files.items()
        for name, info in metadata.tensors.items()
    ]  # fmt: skip


def from_config(folder: Path) -> list[StoredTensor]:
    """The tensors that a config.json implies, for a checkpoint whose weights are not here: the
    model is made without memory for it. Takes transformers' and torch's import. Raises: StartError.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with init_empty_weights():
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as exc:
        raise StartError(
            f"The checkpoint {folder} has no weights, and its config.json makes no model: "
            f"{type(exc).__name__}."
        ) from exc
    model.tie_weights()
    stored = DTYPES.get(str(config.dtype).removeprefix("torch."), "F32")
    return [_implied(name, weight, stored) for name, weight in model.named_parameters()]


def _implied(name: str, weight: Any, stored: str) -> StoredTensor:
    num_bytes = weight.numel() * {"F32": 4, "F64": 8}.get(stored, 2)
    return StoredTensor(name, stored, tuple(weight.shape), Path(), 0, num_bytes)
