"""Which implementation of attention a model runs with: torch's fused one where it is exact.

transformers takes `sdpa` for every class that names it, also where it leaves out what the model was
trained with; `eager` is each model's own definition.
"""

import logging
from collections.abc import Callable
from typing import Any

from torch import Tensor

logger = logging.getLogger(__name__)

# sdpa cannot cap the logits of attention, as Gemma 2 does, and transformers leaves it out silently.
SOFTCAP_FIELDS = ("attn_logit_softcapping", "attention_logit_cap", "attn_logit_softcap")


def options(asked: str, architecture: Any) -> dict[str, str]:
    """What a model must be made with; nothing where transformers may choose."""
    if asked != "auto":
        return {"attn_implementation": asked}
    text_config = architecture.get_text_config()
    capped = any(getattr(text_config, field, None) for field in SOFTCAP_FIELDS)
    return {"attn_implementation": "eager"} if capped else {}


def can_be_eager(model: Any) -> bool:
    """Whether a model runs with sdpa and could run without."""
    config = getattr(model, "config", None)
    is_sdpa = getattr(config, "_attn_implementation", None) == "sdpa"
    return is_sdpa and bool(model._can_set_attn_implementation())


def switch(model: Any, implementation: str, why: str) -> None:
    """Lets a model run with another attention from now on."""
    logger.warning("%s runs with %s attention: %s", type(model).__name__, implementation, why)
    model.set_attn_implementation(implementation)


def with_both(model: Any, say: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """What the model says with sdpa and with eager attention; it is left with sdpa."""
    fused = say()
    model.set_attn_implementation("eager")
    try:
        return fused, say()
    finally:
        model.set_attn_implementation("sdpa")
