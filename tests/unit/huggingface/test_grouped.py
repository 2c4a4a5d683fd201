import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from deployments.huggingface.engine import grouped

from .allocations import Allocations

BATCH, COLUMNS, SIZE, HEADS = 3, 640, 16, 8


def states(num_shared: int, num_new: int) -> tuple[torch.Tensor, ...]:
    """Random query, keys and values, and a mask of rows that are padded at their left."""
    torch.manual_seed(num_shared)
    query = torch.randn(BATCH, HEADS, num_new, SIZE)
    key, value = (torch.randn(BATCH, HEADS // num_shared, COLUMNS, SIZE) for _ in range(2))
    first = torch.tensor([0, 7, 600])[:, None, None, None]
    newest = torch.arange(COLUMNS - num_new, COLUMNS)[:, None]
    columns = torch.arange(COLUMNS)
    return query, key, value, (columns >= first) & (columns <= newest)


@pytest.mark.parametrize("num_shared", [1, 2, 4, 8])
@pytest.mark.parametrize("num_new", [1, 5])
def test_shared_keys_give_what_their_copies_give(num_shared: int, num_new: int) -> None:
    """The attention is transformers' own, however many heads share keys, padding included."""
    module: Any = SimpleNamespace(num_key_value_groups=num_shared, is_causal=True)
    inputs = states(num_shared, num_new)
    got, _ = grouped.attention(module, *inputs, dropout=0.0, scaling=0.3)
    right, _ = sdpa_attention_forward(module, *inputs, dropout=0.0, scaling=0.3)
    assert got.shape == right.shape
    torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-6)


def test_arguments_have_transformers_names() -> None:
    """An architecture may name what it passes to the attention, as AFMoE does."""
    ours = list(inspect.signature(grouped.attention).parameters)
    assert ours[:-1] == list(inspect.signature(sdpa_attention_forward).parameters)[: len(ours) - 1]


def test_a_step_copies_no_keys() -> None:
    """What a step allocates does not hold the keys of the rows again, let alone for each head."""
    query, key, value, mask = states(4, 1)
    module: Any = SimpleNamespace(num_key_value_groups=4, is_causal=True)
    with Allocations() as ours:
        grouped.attention(module, query, key, value, mask, scaling=0.3)
    with Allocations() as theirs:
        sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    assert ours.peak_bytes < key.nbytes < 4 * key.nbytes <= theirs.peak_bytes
