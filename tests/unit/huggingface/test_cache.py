import torch
from transformers.cache_utils import DynamicCache

from deployments.huggingface.engine import cache as caches
from deployments.huggingface.engine.room import SPARE_COLUMNS, Size

ALL = 2**60


def filled(num_rows: int, num_columns: int, num_layers: int = 1) -> DynamicCache:
    """A cache as a prefill makes it, its states numbered."""
    cache = DynamicCache()
    for layer in range(num_layers):
        states = torch.arange(num_rows * num_columns * 4.0).reshape(num_rows, 2, num_columns, 2)
        cache.update(states + 1 + layer, states + 1.5 + layer, layer)
    return cache


def roomy(num_rows: int, num_columns: int, num_layers: int = 1) -> DynamicCache:
    """One that rows can join and leave."""
    cache = filled(num_rows, num_columns, num_layers)
    caches.be_roomy(cache)
    return cache


def one_column(cache: DynamicCache, num_rows: int) -> None:
    """What a step writes."""
    for layer in range(len(cache.layers)):
        cache.update(torch.ones(num_rows, 2, 1, 2), torch.ones(num_rows, 2, 1, 2), layer)


def storage(cache: DynamicCache) -> list[int]:
    """Where the states of a cache lie."""
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    return [states.untyped_storage().data_ptr() for both in layers for states in both]


def test_who_leaves_is_replaced_by_one_row() -> None:
    """Where rows leave, as many of those behind them are copied, and all others stay where they
    are, in memory that has room for the steps that follow."""
    cache = roomy(5, 40)
    caches.make_room(cache, Size(5, 40), ALL)
    before, keys = storage(cache), cache.layers[0].keys.clone()
    caches.keep(cache, [0, 4, 2], 20)
    for _ in range(SPARE_COLUMNS):
        one_column(cache, 3)
    assert storage(cache) == before
    assert torch.equal(cache.layers[0].keys[:, :, :20], keys[[0, 4, 2], :, -20:])
    assert bool((cache.layers[0].keys[:, :, 20:] == 1).all())


def test_who_joins_moves_nobody() -> None:
    """Where there is room for rows that join they alone are written, in line at the right, and who
    has been there is padded at the left with zeros."""
    cache, other = roomy(2, 12), filled(3, 30)
    old, new = cache.layers[0].values.clone(), other.layers[0].values.clone()
    caches.make_room(cache, Size(4, 30), ALL)
    before = storage(cache)
    caches.join(cache, other, torch.tensor([2]), is_last=False)
    caches.join(cache, other, torch.tensor([0]), is_last=True)
    values = cache.layers[0].values
    assert storage(cache) == before
    assert values.shape == (4, 2, 30, 2)
    assert torch.equal(values[:2, :, 18:], old)
    assert torch.equal(values[2:], new[[2, 0]])
    assert not values[:2, :, :18].any()


def test_room_is_made_in_pieces() -> None:
    """Memory for more is taken piece by piece, each no larger than asked, or the keys or values of
    one layer; between pieces the cache is what it was, and takes steps."""
    cache = roomy(2, 12, num_layers=3)
    piece = 4 * (30 + SPARE_COLUMNS) * 2 * 2 * 4
    expected = [layer.keys.clone() for layer in cache.layers]
    moved = []
    while num_bytes := caches.make_room(cache, Size(4, 30), 2 * piece + 1):
        moved.append(num_bytes)
        one_column(cache, 2)
    assert moved == [2 * piece] * 3
    for layer, keys in zip(cache.layers, expected, strict=True):
        assert torch.equal(layer.keys[:, :, :12], keys)
        assert bool((layer.keys[:, :, 12:] == 1).all())
    assert caches.make_room(cache, Size(4, 30), 0) == 0


def test_room_is_made_before_there_is_none() -> None:
    """New columns are due while as many are left as are to come: none is missing in a step."""
    cache, size = roomy(2, 12), Size(2, 12, num_more=8)
    caches.make_room(cache, size, ALL)
    for _ in range(SPARE_COLUMNS - size.num_more):
        assert caches.num_missing_bytes(cache, size) == 0
        one_column(cache, 2)
    before = storage(cache)
    one_column(cache, 2)
    assert caches.num_missing_bytes(cache, size)
    assert storage(cache) == before


def test_memory_that_is_far_too_large_is_given_back() -> None:
    """When most rows have left, those that stay move into less memory."""
    cache = roomy(64, 40)
    caches.make_room(cache, Size(64, 40), ALL)
    before = caches.num_bytes(cache)
    caches.keep(cache, list(range(4)), 40)
    caches.make_room(cache, Size(4, 40), ALL)
    assert caches.num_bytes(cache) == before // 16


def test_nothing_of_who_has_left_is_padding() -> None:
    """A row whose states are no numbers leaves none where another is padded later: behind a mask
    they would still spoil it."""
    cache = roomy(3, 40)
    caches.make_room(cache, Size(3, 40), ALL)
    cache.layers[0].keys[0] = torch.nan
    caches.keep(cache, [2, 1], 10)
    caches.join(cache, filled(1, 40), torch.tensor([0]), is_last=True)
    assert cache.layers[0].keys.shape == (3, 2, 40, 2)
    assert bool(cache.layers[0].keys.isfinite().all())
