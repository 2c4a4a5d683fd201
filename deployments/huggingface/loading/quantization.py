"""Weights in 8 or 4 bits by bitsandbytes, and whether they really are.

transformers calls a model quantized even if not a layer of it was converted, so the layers are
counted. The output head stays as it is, as is usual: it is small, and the most sensitive.
"""

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.quantizers.base import get_keys_to_not_convert

from deployments.config import HuggingFaceConfig
from deployments.errors import StartError
from deployments.placement.weights import has_part

logger = logging.getLogger(__name__)

LAYERS = {"int8": "Linear8bitLt", "nf4": "Linear4bit"}
GB = 1e9


def options(config: HuggingFaceConfig, dtype: torch.dtype, model: Any) -> dict[str, Any]:
    """What `from_pretrained` must be told to quantise this model. Raises: StartError."""
    # It warns of a cast in every layer of every step, and of kernels that would be downloaded.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if config.quantization == "none":
        return {}
    from transformers import BitsAndBytesConfig

    skipped = skipped_modules(config, model)
    told: dict[str, Any] = {}
    if skipped:  # in the place of transformers' own
        told["llm_int8_skip_modules"] = [*get_keys_to_not_convert(model), *sorted(skipped)]
    if config.quantization == "int8":
        threshold = config.quantization_options.llm_int8_threshold
        told |= {} if threshold is None else {"llm_int8_threshold": threshold}
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, **told)}
    told |= {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    told |= {"bnb_4bit_use_double_quant": True}
    return {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **told)}


def skipped_modules(config: HuggingFaceConfig, model: Any) -> frozenset[str]:
    """The names of linear layers that stay as they are because the options say so.

    Raises: StartError for a name that none has.
    """
    names = [name for name, module in model.named_modules() if _is_linear(module)]
    found: set[str] = set()
    for asked in config.quantization_options.llm_int8_skip_modules:
        those = {name for name in names if has_part(name, asked)}
        if not those:
            raise StartError(
                f"quantization_options: llm_int8_skip_modules names `{asked}`, which no linear "
                f"layer of {type(model).__name__} is called or in. One is called `{names[0]}`."
            )
        found |= those
    return frozenset(found)


def refuse(config: HuggingFaceConfig, model: Any, streams: bool) -> None:
    """Raises: StartError for what cannot work together, before any weights are read."""
    if config.quantization == "none":
        return
    if getattr(model.config, "quantization_config", None):
        raise StartError(
            f"quantization: {config.quantization} cannot work on a checkpoint that is quantized "
            "already. Set `quantization: none`: it is loaded as it is."
        )
    skipped_modules(config, model)
    if streams and config.quantization_options.llm_int8_threshold is not None:
        raise StartError(
            "quantization_options: llm_int8_threshold cannot work with layers that stream: their "
            "activations are never rounded. Leave it out, or give the model more `memory`."
        )


@contextmanager
def convertible(model_class: type) -> Iterator[None]:
    """Inside, models of this class are made of layers that transformers converts.

    Falcon has a Linear of its own, which multiplies as torch's does, but transformers 5 converts
    torch's only.
    """
    module = sys.modules[model_class.__module__]
    own = vars(module).get("FalconLinear")
    if own is None:
        yield
        return
    module.FalconLinear = nn.Linear  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.FalconLinear = own  # type: ignore[attr-defined]


def check(model: Any, kind: str) -> None:
    """Raises: StartError, if `kind` is asked for and no layer was converted to it."""
    if kind == "none":
        return
    layers = Counter(type(module).__name__ for module in model.modules() if _is_linear(module))
    num_converted = layers.pop(LAYERS[kind], 0)
    if not num_converted:
        found = ", ".join(f"{count} {name}" for name, count in layers.items()) or "none"
        raise StartError(
            f"quantization: {kind} converted no layer of {type(model).__name__}. bitsandbytes "
            f"takes plain Linear and Conv1D layers outside the output head; here are: {found}. "
            "Set `quantization: none`, or use a checkpoint that is quantized already."
        )
    logger.info(
        "%s: %d of %d linear layers, the weights now take %.2f GB",
        kind,
        num_converted,
        num_converted + layers.total(),
        model.get_memory_footprint() / GB,
    )


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
