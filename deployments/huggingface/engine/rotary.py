"""Rotary positions that change with the length of a text, chosen for each row by its own length.

Models with LongRoPE, such as Phi-3 and Phi-4-mini, have other positions for texts beyond the length
that they were trained on first. transformers looks at the longest row of a batch, and gives its
kind of positions to all: a long text would change what is said to the short ones beside it.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from transformers import GenerationMixin

logger = logging.getLogger(__name__)

Rotation = tuple[Tensor, Tensor]  # cosines and sines, each `(batch, columns, size)`
ORIGINAL = "original_max_position_embeddings"


class ByRow:
    """A rotary embedding's `forward` that is given rows of one kind at a time: those within `turn`
    tokens, and those beyond."""

    def __init__(self, forward: Callable[..., Rotation], turn: int) -> None:
        self._forward = forward
        self._turn = turn

    def __call__(self, states: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Rotation:
        is_long = position_ids.amax(-1) >= self._turn
        kinds = [rows for rows in (is_long, ~is_long) if rows.any()]
        parts = [self._forward(states, position_ids[rows], *args, **kwargs) for rows in kinds]
        if len(parts) == 1:
            return parts[0]
        return _merged(kinds, [cos for cos, _ in parts]), _merged(kinds, [sin for _, sin in parts])


def install(model: Any) -> int | None:
    """Lets each row of a batch have its own kind of positions. Returns how many tokens a text may
    have before they change; None for a model whose positions never do."""
    turns = []
    for module in model.modules():
        turn = _turn(module)
        if turn is None:
            continue
        turns.append(turn)
        if not isinstance(module.forward, ByRow):
            module.forward = ByRow(module.forward, turn)
            logger.info(
                "%s has other positions for texts of more than %d tokens: longer prompts are read "
                "in one piece",
                type(model).__name__,
                turn,
            )
    return min(turns, default=None)


def forgets(model: Any) -> bool:
    """Whether transformers has a text read anew when it gets so long that its positions change, as
    it means to for Phi-3. (5.19 then gives the model the last token only.) Others go on."""
    own = type(model).prepare_inputs_for_generation
    is_own = own is not GenerationMixin.prepare_inputs_for_generation
    return is_own and hasattr(model.config, ORIGINAL)


def _turn(module: Any) -> int | None:
    kinds = getattr(module, "rope_type", None)
    is_long = kinds == "longrope" or (isinstance(kinds, Mapping) and "longrope" in kinds.values())
    if not is_long:
        return None
    parameters = module.config.rope_parameters
    nested = [value for value in parameters.values() if isinstance(value, Mapping)]
    long = [found for found in (parameters, *nested) if found.get("rope_type") == "longrope"]
    return min(int(found[ORIGINAL]) for found in long)


def _merged(kinds: list[Tensor], parts: list[Tensor]) -> Tensor:
    """The rows of both kinds, each in its place."""
    merged = parts[0].new_empty((len(kinds[0]), *parts[0].shape[1:]))
    for rows, part in zip(kinds, parts, strict=True):
        merged[rows] = part
    return merged
