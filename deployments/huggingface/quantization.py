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

from deployments.errors import StartError

logger = logging.getLogger(__name__)

LAYERS = {"int8": "Linear8bitLt", "nf4": "Linear4bit"}
GB = 1e9


def options(kind: str, dtype: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` must be told."""
    if kind == "none":
        return {}
    from transformers import BitsAndBytesConfig

    # It warns of a cast in every layer of every step, and of kernels that would be downloaded.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if kind == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=True,
    )
    return {"quantization_config": config}


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
