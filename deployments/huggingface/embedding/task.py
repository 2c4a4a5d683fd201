"""What a checkpoint is for, where its operator does not say: to generate text, or to embed it."""

import json
from pathlib import Path
from typing import Any, Literal

from deployments.config import HuggingFaceConfig

Task = Literal["generate", "embed"]
MODULES = "modules.json"
LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel")
EMBEDDERS = ("Model", "ForMaskedLM", "ForPreTraining")


def task_of(folder: Path, config: HuggingFaceConfig) -> Task:
    """`task` of the args; left to us, what sentence-transformers has saved embeds, and so does a
    model without a head that could say a next token."""
    if config.task != "auto":
        return config.task
    if (folder / MODULES).is_file():
        return "embed"
    return "embed" if _is_headless(_config(folder)) else "generate"


def _config(folder: Path) -> dict[str, Any]:
    """config.json; empty where it cannot be read, of which the loader will tell."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _is_headless(config: dict[str, Any]) -> bool:
    architecture = str((config.get("architectures") or [""])[0])
    if architecture.endswith(LANGUAGE_MODELS) or not architecture.endswith(EMBEDDERS):
        return False
    # A decoder that was saved without its head has one all the same, if it is tied.
    tied = bool(config.get("tie_word_embeddings", True))
    return not (tied and _is_decoder(str(config.get("model_type"))))


def _is_decoder(model_type: str) -> bool:
    from transformers.models.auto import modeling_auto as auto

    masked = auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in masked
