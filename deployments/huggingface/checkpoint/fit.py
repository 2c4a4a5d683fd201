"""Whether a checkpoint's config and weights are of one model, and of one that generates text.

transformers fills with noise what does not fit, and only logs it: wrong words, but no error.
"""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from deployments.errors import StartError
from deployments.placement.geometry import EXTRA_LAYERS
from deployments.placement.surplus import check_surplus, some

NUMBER = re.compile(r"\.\d+\.")


def check_generates(folder: Path, architecture: Any) -> None:
    """Raises: StartError for a model that classifies, embeds or sees, but does not write."""
    name = next(filter(_does_not_generate, architecture.architectures or ()), None)
    known = type(architecture) in AutoModelForCausalLM._model_mapping
    if name is None and not known and "AutoModelForCausalLM" not in _own_classes(architecture):
        name = f"of the type {architecture.model_type}"
    if name is not None:
        raise StartError(
            f"The checkpoint {folder} is {name}, which does not generate text. Use a checkpoint of "
            "a decoder with a language-modelling head (...ForCausalLM)."
        )


def check_weights(folder: Path, info: Mapping[str, Any]) -> None:
    """Raises: StartError for weights that the files lack, or have in another shape."""
    if missing := info.get("missing_keys"):
        raise StartError(
            f"The checkpoint {folder} lacks {len(missing)} of the model's weights "
            f"({some(missing)}). Download it again, or correct its config.json."
        )
    if mismatched := info.get("mismatched_keys"):
        described = [
            f"{name} is {list(found)} where {list(wanted)} is wanted"
            for name, found, wanted in sorted(mismatched)
        ]
        raise StartError(
            f"The weights of the checkpoint {folder} are not those that its config.json describes: "
            f"{some(described)}. Download both again."
        )


def check_layers(folder: Path, info: Mapping[str, Any], model: Any) -> None:
    """Raises: StartError for files with more layers than the config names: without them a model
    says nonsense. Other weights that a model has no use for are left where they are."""
    if getattr(model.config, EXTRA_LAYERS, 0):
        return
    known = {name for name, _ in model.named_parameters()}
    layers = set(map(_layer, known))
    beyond = [
        name
        for name in info["unexpected_keys"]
        if _layer(name) not in layers and NUMBER.sub(".0.", name, count=1) in known
    ]
    check_surplus(folder, beyond)


def _layer(name: str) -> str:
    """A weight's name up to the number in it, with that."""
    match = NUMBER.search(name)
    return name[: match.end()] if match else ""


def _does_not_generate(name: str) -> bool:
    """Whether a class is transformers' and has another head. One without a head is not said to:
    where embeddings are its head too, nothing is missing."""
    found: Any = getattr(transformers, name, None)
    is_model = inspect.isclass(found) and issubclass(found, PreTrainedModel)
    return is_model and not name.endswith("Model") and not found.can_generate()


def _own_classes(architecture: Any) -> Mapping[str, str]:
    """The classes that come with the checkpoint, as code."""
    return getattr(architecture, "auto_map", None) or {}
