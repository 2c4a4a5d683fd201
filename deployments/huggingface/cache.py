"""The keys and values of rows that decode together: transformers' DynamicCache, edited in place.

Columns are aligned at the right: the last one holds the newest token of every row, and shorter
rows begin with padding. A sliding-window layer keeps the newest columns only.
"""

from typing import Any

from torch import Tensor
from transformers.cache_utils import (
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    get_layer_types_and_kwargs,
)

EDITABLE_LAYERS = {DynamicLayer, DynamicSlidingWindowLayer}
# Chunked attention is not among them: where its chunks begin depends on the padding.
EDITABLE_LAYER_TYPES = {"full_attention", "sliding_attention"}


def is_editable(cache: Any, model_config: Any) -> bool:
    """Whether rows can join and leave this cache: not where a layer keeps a running state."""
    layer_types, _ = get_layer_types_and_kwargs(model_config.get_text_config(decoder=True))
    return (
        type(cache) is DynamicCache
        and {type(layer) for layer in cache.layers} <= EDITABLE_LAYERS
        and set(layer_types) <= EDITABLE_LAYER_TYPES
    )


def bytes_per_token(cache: Any) -> int:
    """What one column of one row takes in all layers, by the real shapes; 0 if there is none."""
    states = [
        states
        for layer in getattr(cache, "layers", ())
        for states in (getattr(layer, "keys", None), getattr(layer, "values", None))
        if states is not None and states.dim() == 4
    ]
    return sum(state[0, :, 0].numel() * state.element_size() for state in states)


def join(cache: Any, other: Any) -> None:
    """Appends the rows of `other`, which is used up. The narrower of the two is padded."""
    width = max(cache.get_seq_length(), other.get_seq_length())
    for layer, newcomer in zip(cache.layers, other.layers, strict=True):
        count = _num_kept(layer, width)
        layer.keys = _stacked(layer.keys, newcomer.keys, count)
        layer.values = _stacked(layer.values, newcomer.values, count)
        newcomer.keys = newcomer.values = None  # never more than one layer twice in memory
        _set_width(layer, width)


def select(cache: Any, rows: Tensor, width: int) -> None:
    """Keeps the rows `(kept,)`, in this order, and the newest `width` columns."""
    for layer in cache.layers:
        count = _num_kept(layer, width)
        layer.keys = layer.keys[:, :, -count:].index_select(0, rows)
        layer.values = layer.values[:, :, -count:].index_select(0, rows)
        _set_width(layer, width)


def _num_kept(layer: Any, width: int) -> int:
    """How many columns a layer has of a cache of `width` columns."""
    return min(width, layer.sliding_window - 1) if layer.is_sliding else width


def _set_width(layer: Any, width: int) -> None:
    if layer.is_sliding:
        layer.cumulative_length = width


def _stacked(states: Tensor, others: Tensor, count: int) -> Tensor:
    """Both `(batch, heads, columns, size)` as one, `count` columns wide."""
    rows = len(states) + len(others)
    stacked = states.new_zeros((rows, states.shape[1], count, states.shape[3]))
    stacked[: len(states), :, count - states.shape[2] :] = states
    stacked[len(states) :, :, count - others.shape[2] :] = others
    return stacked
