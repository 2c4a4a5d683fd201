"""The keys and values of rows that decode together: transformers' DynamicCache, edited in place.

Columns are aligned at the right: the last one holds the newest token of every row, and shorter
rows begin with padding. A sliding-window layer keeps the newest columns only.
"""

from typing import Any

import torch
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
        self.hold_in((keys, values), keys.shape[2])

    def hold_in(self, rooms: tuple[Tensor, Tensor], num_columns: int) -> None:
        """Keeps the first columns of these keys and values; the others are spare."""
        self._rooms = rooms
        self.keys, self.values = (room[:, :, :num_columns] for room in rooms)

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
        self.hold_in(self._rooms, needed)
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
        keys = _stacked(layer.keys, newcomer.keys, count, _num_spare(layer, count))
        values = _stacked(layer.values, newcomer.values, count, _num_spare(layer, count))
        _hold(layer, keys, values, width)
        newcomer.keys = newcomer.values = None  # never more than one layer twice in memory


def select(cache: Any, rows: Tensor, width: int) -> None:
    """Keeps the rows `(kept,)`, in this order, and the newest `width` columns."""
    for layer in cache.layers:
        count = _num_kept(layer, width)
        keys = _selected(layer.keys, rows, count, _num_spare(layer, count))
        values = _selected(layer.values, rows, count, _num_spare(layer, count))
        _hold(layer, keys, values, width)


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
    """Lets a layer have these states, of a cache of `width` columns; what is more is spare."""
    if isinstance(layer, RoomyLayer):
        layer.hold_in((keys, values), width)
        return
    layer.keys, layer.values = keys, values
    if layer.is_sliding:
        layer.cumulative_length = width


def _num_spare(layer: Any, num_columns: int) -> int:
    """How many columns more than `num_columns` a layer is to have room for."""
    return _spare(num_columns) if isinstance(layer, RoomyLayer) else 0


def _spare(num_columns: int) -> int:
    return max(SPARE_COLUMNS, num_columns // SPARE_SHARE)


def _roomier(states: Tensor, num_columns: int) -> Tensor:
    """A copy of `(batch, heads, columns, size)` with room for `num_columns` and some more."""
    room = _room(states, len(states), num_columns + _spare(num_columns))
    room[:, :, : states.shape[2]] = states
    return room


def _selected(states: Tensor, rows: Tensor, count: int, num_spare: int) -> Tensor:
    """The newest `count` columns of these rows, copied once, with spare columns behind them."""
    room = _room(states, len(rows), count + num_spare)
    torch.index_select(states[:, :, -count:], 0, rows, out=room[:, :, :count])
    return room


def _stacked(states: Tensor, others: Tensor, count: int, num_spare: int) -> Tensor:
    """Both `(batch, heads, columns, size)` as one, `count` columns wide and the spare ones."""
    stacked = _room(states, len(states) + len(others), count + num_spare)
    _align(stacked[: len(states), :, :count], states)
    _align(stacked[len(states) :, :, :count], others)
    return stacked


def _align(room: Tensor, states: Tensor) -> None:
    """Fills a room with states at its right, and with zeros at their left."""
    num_left = room.shape[2] - states.shape[2]
    room[:, :, :num_left] = 0
    room[:, :, num_left:] = states


def _room(states: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """Memory for states like these."""
    return states.new_empty((num_rows, states.shape[1], num_columns, states.shape[3]))
