"""An adapter's folder as PEFT saves it: whether it is one, what its config says, and whether its
shapes are those of a checkpoint. Reads no weights, only their headers.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from deployments.errors import StartError
from deployments.placement.header import read_header

# These start from other base weights than the checkpoint's. PEFT would put those in its place, and
# vLLM would not notice.
REWRITES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_PICKLE = "adapter_model.bin"
PREFIX = "base_model.model."
DOWN = ".lora_A.weight"
Shapes = Mapping[str, tuple[int, ...]]


def read_adapter_config(name: str, folder: Path) -> dict[str, Any]:
    """The config of a LoRA adapter. Raises: StartError, saying what is wrong and what to do."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise StartError(
            f"The adapter {name}: {folder} {what}. Set it to a folder that PEFT has saved, or to "
            "a hub id."
        )
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise StartError(
            f"The adapter {name}: {folder} has no {ADAPTER_CONFIG}. Set it to the folder that has "
            "one."
        )
    try:
        config = json.loads(path.read_bytes())
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise StartError(f"The adapter {name}: {path} is not a JSON object. Download it again.")
    if config.get("peft_type") != "LORA":
        kind = config.get("peft_type")
        raise StartError(f"The adapter {name} is of the kind {kind}; only LORA is served.")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(REWRITES_BASE):
        raise StartError(
            f"The adapter {name} cannot be served beside others: it was trained from weights "
            f"other than its base's (`init_lora_weights: {start}`). Convert it to a plain LoRA, as "
            "PEFT's guide says, or merge it into a checkpoint of its own."
        )
    return config


def check_shapes(name: str, folder: Path, checkpoint: Path) -> None:
    """Raises: StartError for an adapter of a model with other layers or sizes than a checkpoint.

    Layers that the checkpoint stores under other names are passed over, unless all of them are.
    """
    inputs = {
        key.removeprefix(PREFIX).removesuffix(DOWN): shape[1]
        for key, shape in _shapes(folder.glob(ADAPTER_WEIGHTS)).items()
        if key.endswith(DOWN) and len(shape) == 2
    }
    base = _shapes(checkpoint.glob("*.safetensors"))
    known = {layer: base[f"{layer}.weight"] for layer in inputs if f"{layer}.weight" in base}
    wrong = next((layer for layer, shape in known.items() if inputs[layer] not in shape), None)
    if wrong:
        raise StartError(
            f"The adapter {name} ({folder}) does not fit the checkpoint: {wrong} takes "
            f"{inputs[wrong]} inputs there, and {known[wrong][-1]} here. Is it an adapter of "
            "another base model?"
        )
    if inputs and base and not known:
        raise StartError(
            f"The adapter {name} ({folder}) does not fit the checkpoint, which has no "
            f"{next(iter(inputs))}. Is it an adapter of another base model?"
        )


def _shapes(files: Iterable[Path]) -> Shapes:
    return {tensor.name: tensor.shape for file in files for tensor in read_header(file)}
