import torch
from transformers.cache_utils import DynamicCache

from deployments.huggingface import cache as caches


def filled(num_rows: int, num_columns: int) -> DynamicCache:
    """A roomy cache of one layer, its states numbered."""
    cache = DynamicCache()
    states = torch.arange(num_rows * num_columns * 4.0).reshape(num_rows, 2, num_columns, 2)
    cache.update(states, states + 0.5, 0)
    caches.make_room(cache)
    return cache


def one_column(cache: DynamicCache, num_rows: int) -> None:
    """What a step writes."""
    cache.update(torch.ones(num_rows, 2, 1, 2), torch.ones(num_rows, 2, 1, 2), 0)


def test_rows_that_leave_cost_one_copy() -> None:
    """Who stays is copied once, with room for the steps that follow: they write in place."""
    cache = filled(4, 30)
    kept = cache.layers[0].keys[[0, 3], :, -20:].clone()
    caches.select(cache, torch.tensor([0, 3]), 20)
    storage = cache.layers[0].keys.untyped_storage().data_ptr()
    for _ in range(caches.SPARE_COLUMNS):
        one_column(cache, 2)
    assert cache.layers[0].keys.untyped_storage().data_ptr() == storage
    assert torch.equal(cache.layers[0].keys[:, :, :20], kept)
    assert bool((cache.layers[0].keys[:, :, 20:] == 1).all())


def test_rows_that_join_cost_one_copy() -> None:
    """Old and new rows are put together once, padded with zeros, with room for what follows."""
    cache, other = filled(2, 12), filled(1, 30)
    old, new = cache.layers[0].values.clone(), other.layers[0].values.clone()
    caches.join(cache, other)
    storage = cache.layers[0].values.untyped_storage().data_ptr()
    for _ in range(caches.SPARE_COLUMNS):
        one_column(cache, 3)
    values = cache.layers[0].values
    assert values.untyped_storage().data_ptr() == storage
    assert torch.equal(values[:2, :, 18:30], old)
    assert torch.equal(values[2:, :, :30], new)
    assert not values[:2, :, :18].any()
