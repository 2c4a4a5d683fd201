"""The keys and values of rows that decode together: transformers' DynamicCache, edited in place.

Columns are aligned at the right: the last one holds the newest token of every row, and shorter
rows begin with padding. A sliding-window layer keeps the newest columns only.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Rows
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    get_layer_types_and_kwargs,
)

from deployments.huggingface.engine.room import Room, Size

EDITABLE_LAYERS = {DynamicLayer, DynamicSlidingWindowLayer}
# Chunked attention is not among them: where its chunks begin depends on the padding.
EDITABLE_LAYER_TYPES = {"full_attention", "sliding_attention"}


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A layer with spare rows and columns, so that a step writes one column instead of copying
    them all. Who has changed a room calls `show`."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.rooms = Room(keys), Room(values)
        self.show()

    def show(self) -> None:
        """Lets the model see what is in the rooms."""
        self.keys, self.values = (room.states for room in self.rooms)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends columns; returns all of them."""
        keys, values = self.rooms
        self.keys, self.values = keys.append(key_states), values.append(value_states)
        return self.keys, self.values


def be_roomy(cache: Any) -> None:
    """Lets the layers that grow without end take memory for more than they hold."""
    layers = getattr(cache, "layers", [])
    for index, layer in enumerate(layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            layers[index] = RoomyLayer(layer.keys, layer.values)


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
    return sum(state[0, :, 0].nbytes for state in states)


def num_bytes(cache: Any) -> int:
    """What a cache holds on its device, spare rows and columns included; None holds nothing."""
    return sum(state.untyped_storage().nbytes() for state in _states(cache))


def num_missing_bytes(cache: Any, size: Size) -> int:
    """What `make_room` has to move."""
    return sum(room.num_missing_bytes(size) for _, room in _rooms(cache))


def sizes(cache: Any, size: Size) -> list[int]:
    """The bytes of memory of this size, piece by piece as they can be taken."""
    return [room.num_bytes_of(size) for _, room in _rooms(cache)]


def make_room(cache: Any, size: Size, max_bytes: int) -> int:
    """Takes memory of this size: no more than `max_bytes` of it, or for the keys or the values of
    one layer. Returns the bytes; 0 if there is room."""
    num_moved = 0
    for layer, room in _rooms(cache):
        missing = room.num_missing_bytes(size)
        if missing and num_moved and num_moved + missing > max_bytes:
            return num_moved
        if missing:
            room.move(size)
            layer.show()
            num_moved += missing
    return num_moved


def join(cache: Any, other: Any, rows: Tensor, is_last: bool) -> None:
    """Appends these rows of `other`, which the last ones use up."""
    width = max(cache.get_seq_length(), other.get_seq_length())
    for layer, newcomer in zip(cache.layers, other.layers, strict=True):
        if isinstance(layer, RoomyLayer):
            _add(layer, newcomer, rows, width)
        else:
            count = min(width, layer.sliding_window - 1)
            layer.keys = _stacked(layer.keys, newcomer.keys[rows], count)
            layer.values = _stacked(layer.values, newcomer.values[rows], count)
            layer.cumulative_length = width
        if is_last:
            newcomer.keys = newcomer.values = None  # never more than one layer twice in memory


def keep(cache: Any, rows: Rows[int], width: int) -> None:
    """Keeps these rows, in this order, and the newest `width` columns. Row n of them was row n or
    is one of those behind: only such rows are copied."""
    moved = torch.tensor([(n, row) for n, row in enumerate(rows) if n != row]).long()
    to, of = moved.reshape(-1, 2).unbind(1)
    for layer in cache.layers:
        device = layer.keys.device
        if not isinstance(layer, RoomyLayer):
            _select(layer, torch.tensor(rows, device=device), width)
            continue
        to, of = to.to(device), of.to(device)
        for room in layer.rooms:
            room.keep((to, of), len(rows), width)
        layer.show()


def select(cache: Any, rows: Tensor) -> None:
    """Lets a cache that is not roomy yet have these of its rows, each as often as it is named."""
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[rows], layer.values[rows]


def fill(cache: Any, num_rows: int, width: int) -> None:
    """Lets a cache be one of `num_rows` rows and `width` columns, with nothing in them."""
    for index, layer in enumerate(cache.layers):
        count = min(width, layer.sliding_window - 1) if layer.is_sliding else width
        keys, values = (
            states.new_zeros((num_rows, states.shape[1], count, states.shape[3]))
            for states in (layer.keys, layer.values)
        )
        if layer.is_sliding:
            layer.keys, layer.values, layer.cumulative_length = keys, values, width
        else:
            cache.layers[index] = RoomyLayer(keys, values)


def _states(cache: Any) -> list[Tensor]:
    return [
        states
        for layer in getattr(cache, "layers", ())
        for states in (getattr(layer, "keys", None), getattr(layer, "values", None))
        if states is not None
    ]


def _rooms(cache: Any) -> Iterator[tuple[RoomyLayer, Room]]:
    for layer in getattr(cache, "layers", ()):
        if isinstance(layer, RoomyLayer):
            yield from ((layer, room) for room in layer.rooms)


def _add(layer: RoomyLayer, newcomer: Any, rows: Tensor, width: int) -> None:
    size = Size(len(layer.keys) + len(rows), width)
    for room, states in zip(layer.rooms, (newcomer.keys, newcomer.values), strict=True):
        if not room.has(size):
            room.move(size)
        room.add(states, rows)
    layer.show()


def _select(layer: Any, rows: Tensor, width: int) -> None:
    """Keeps these rows of a sliding layer, and what it has of the newest `width` columns."""
    count = min(width, layer.sliding_window - 1)
    layer.keys = layer.keys[:, :, -count:].index_select(0, rows)
    layer.values = layer.values[:, :, -count:].index_select(0, rows)
    layer.cumulative_length = width


def _stacked(states: Tensor, others: Tensor, count: int) -> Tensor:
    """Both `(batch, heads, columns, size)` as one, `count` columns wide."""
    rows, heads, _, size = states.shape
    stacked = states.new_empty((rows + len(others), heads, count, size))
    for room, part in ((stacked[:rows], states), (stacked[rows:], others)):
        num_left = count - part.shape[2]
        room[:, :, :num_left] = 0
        room[:, :, num_left:] = part
    return stacked
