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
SPARE_COLUMNS = 16
SPARE_SHARE = 8  # one spare column for so many used ones
# Chunked attention is not among them: where its chunks begin depends on the padding.
EDITABLE_LAYER_TYPES = {"full_attention", "sliding_attention"}


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A layer with spare columns, so that a step writes one column instead of copying them all."""

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.hold(layer.keys, layer.values)

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Keeps these `(batch, heads, columns, size)` instead."""
        self.keys, self.values = keys, values
        self._rooms = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends columns; returns all of them."""
        used, needed = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if needed > self._rooms[0].shape[2]:
            self._rooms = _roomier(self.keys, needed), _roomier(self.values, needed)
        keys, values = self._rooms
        keys[:, :, used:needed] = key_states
        values[:, :, used:needed] = value_states
        self.keys, self.values = keys[:, :, :needed], values[:, :, :needed]
        return self.keys, self.values


def make_room(cache: Any) -> None:
    """Gives spare columns to the layers that grow without end."""
    layers = getattr(cache, "layers", [])
    for index, layer in enumerate(layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            layers[index] = RoomyLayer(layer)


def is_editable(cache: Any, model_config: Any) -> bool:
    """Whether rows can join and leave this cache: not where a layer keeps a running state."""
    layer_types, _ = get_layer_types_and_kwargs(model_config.get_text_config(decoder=True))
    return (
        type(cache) is DynamicCache
        and {type(layer) for layer in cache.layers} <= EDITABLE_LAYERS | {RoomyLayer}
        and set(layer_types) <= EDITABLE_LAYER_TYPES
    )


def bytes_per_token(cache: Any) -> int:
    """What one column of one row takes in all layers, by the real shapes; 0 if there is none."""
    states = [state for state in _states(cache) if state.dim() == 4]
    return sum(state[0, :, 0].numel() * state.element_size() for state in states)


def num_bytes(cache: Any) -> int:
    """What a cache holds on its device, spare columns included; None holds nothing."""
    return sum(state.untyped_storage().nbytes() for state in _states(cache))


def _states(cache: Any) -> list[Tensor]:
    return [
        states
        for layer in getattr(cache, "layers", ())
        for states in (getattr(layer, "keys", None), getattr(layer, "values", None))
        if states is not None
    ]


def join(cache: Any, other: Any) -> None:
    """Appends the rows of `other`, which is used up. The narrower of the two is padded."""
    width = max(cache.get_seq_length(), other.get_seq_length())
    for layer, newcomer in zip(cache.layers, other.layers, strict=True):
        count = _num_kept(layer, width)
        keys = _stacked(layer.keys, newcomer.keys, count)
        _hold(layer, keys, _stacked(layer.values, newcomer.values, count), width)
        newcomer.keys = newcomer.values = None  # never more than one layer twice in memory


def select(cache: Any, rows: Tensor, width: int) -> None:
    """Keeps the rows `(kept,)`, in this order, and the newest `width` columns."""
    for layer in cache.layers:
        count = _num_kept(layer, width)
        keys = layer.keys[:, :, -count:].index_select(0, rows)
        _hold(layer, keys, layer.values[:, :, -count:].index_select(0, rows), width)


def fill(cache: Any, num_rows: int, width: int) -> None:
    """Lets a cache be one of `num_rows` rows and `width` columns, with nothing in them."""
    for layer in cache.layers:
        shape = (num_rows, layer.keys.shape[1], _num_kept(layer, width))
        keys = layer.keys.new_zeros((*shape, layer.keys.shape[3]))
        _hold(layer, keys, layer.values.new_zeros((*shape, layer.values.shape[3])), width)


def _num_kept(layer: Any, width: int) -> int:
    """How many columns a layer has of a cache of `width` columns."""
    return min(width, layer.sliding_window - 1) if layer.is_sliding else width


def _hold(layer: Any, keys: Tensor, values: Tensor, width: int) -> None:
    """Lets a layer have these states, of a cache of `width` columns."""
    if isinstance(layer, RoomyLayer):
        layer.hold(keys, values)
        return
    layer.keys, layer.values = keys, values
    if layer.is_sliding:
        layer.cumulative_length = width


def _roomier(states: Tensor, num_columns: int) -> Tensor:
    """A copy of `(batch, heads, columns, size)` with room for `num_columns` and some more."""
    spare = max(SPARE_COLUMNS, num_columns // SPARE_SHARE)
    shape = (*states.shape[:2], num_columns + spare, states.shape[3])
    room = states.new_empty(shape)
    room[:, :, : states.shape[2]] = states
    return room


def _stacked(states: Tensor, others: Tensor, count: int) -> Tensor:
    """Both `(batch, heads, columns, size)` as one, `count` columns wide."""
    rows = len(states) + len(others)
    stacked = states.new_zeros((rows, states.shape[1], count, states.shape[3]))
    stacked[: len(states), :, count - states.shape[2] :] = states
    stacked[len(states) :, :, count - others.shape[2] :] = others
    return stacked
