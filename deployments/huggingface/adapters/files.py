"""Whether an adapter's files are there, whole, and of a kind that can be served beside others.

Found out without torch. Whether they fit the model is `loading.py`'s business.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deployments.adapters import (
    ADAPTER_CONFIG,
    ADAPTER_PICKLE,
    ADAPTER_WEIGHTS,
    read_adapter_config,
)
from deployments.errors import StartError
from deployments.huggingface.checkpoint.weight_files import check_pickle, check_safetensors

PICKLE_ADVICE = (
    f"Its pickle file ({ADAPTER_PICKLE}) is loaded only with `allow_pickle: true` in the args; no "
    "code in it is run. Better, load the adapter with PEFT and call save_pretrained."
)
# What would change the base for everybody, or needs more than a prompt and its tokens.
REFUSED: Mapping[str, Callable[[Any], bool]] = {
    "bias": lambda value: value not in (None, "none"),
    "layer_replication": bool,
    "alora_invocation_tokens": bool,
    "arrow_config": bool,
    "megatron_config": bool,
    "monteclora_config": bool,
    "trainable_token_indices": bool,
    "use_bdlora": bool,
    "use_qalora": bool,
}


def check_adapter(name: str, folder: Path, allow_pickle: bool = False) -> None:
    """Raises: StartError, saying what is wrong and what to do about it."""
    config = read_adapter_config(name, folder)
    for field, is_refused in REFUSED.items():
        if is_refused(config.get(field)):
            raise StartError(
                f"The adapter {name} cannot be served beside others: its {ADAPTER_CONFIG} has "
                f"`{field}: {config[field]}`. Convert it to a plain LoRA, or merge it into a "
                "checkpoint of its own."
            )
    weights, pickle = folder / ADAPTER_WEIGHTS, folder / ADAPTER_PICKLE
    if weights.is_file():
        check_safetensors(weights)
    elif pickle.is_file() and allow_pickle:
        check_pickle(pickle)
    else:
        advice = PICKLE_ADVICE if pickle.is_file() else "Save or download it again."
        raise StartError(f"The adapter {name}: {folder} has no {weights.name}. {advice}")
