from typing import Any

import pytest
import torch
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    causal_mask_function,
    sdpa_mask,
    sliding_window_causal_mask_function,
)

from deployments.huggingface.engine import step_mask
from deployments.huggingface.engine.decoder import Decoder

from .architectures import random_model
from .operations import Operations

COLUMNS = 9
PADDED = torch.arange(COLUMNS) >= torch.tensor([[0], [4], [8]])  # (rows, columns)
WHOLE = torch.ones_like(PADDED)
STEP: dict[str, Any] = {
    "batch_size": 3,
    "q_length": 1,
    "kv_length": COLUMNS,
    "q_offset": COLUMNS - 1,
    "kv_offset": 0,
    "mask_function": causal_mask_function,
    "attention_mask": PADDED,
    "allow_is_causal_skip": True,
    "dtype": torch.float32,
    "device": torch.device("cpu"),
}
OTHERS: dict[str, dict[str, Any]] = {
    "a step": {},
    "a step without padding": {"attention_mask": WHOLE},
    "one that must be said": {"attention_mask": WHOLE, "allow_is_causal_skip": False},
    "no padding known": {"attention_mask": None},
    "a chunk": {"q_length": 4, "q_offset": COLUMNS - 4},
    "a token before the last": {"q_offset": COLUMNS - 3},
    "columns to come": {"kv_length": COLUMNS + 2},
    "columns gone": {"kv_length": 5, "kv_offset": 4},
    "a window": {"mask_function": sliding_window_causal_mask_function(3), "local_size": 3},
    "a window of columns": {
        "mask_function": sliding_window_causal_mask_function(5),
        "local_size": 5,
        "kv_length": 5,
        "kv_offset": 4,
    },
}


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS.keys())
def test_masks_are_those_of_transformers(options: dict[str, Any]) -> None:
    """Whatever is asked for, the mask is transformers' own, or none where it has none."""
    right, got = sdpa_mask(**STEP | options), step_mask.mask(**STEP | options)
    if right is None:
        assert got is None
    else:
        assert got is not None
        assert (got.dtype, got.shape) == (right.dtype, right.shape)
        assert torch.equal(got, right)


def test_a_step_makes_no_mask() -> None:
    """The mask of new tokens is the padding as it is: it is looked through once, not made anew."""
    with Operations() as ours:
        got = step_mask.mask(**STEP)
    with Operations() as theirs:
        sdpa_mask(**STEP)
    assert got is not None
    assert got.data_ptr() == PADDED.data_ptr()
    assert 3 * len(ours.names) <= len(theirs.names)


def test_models_have_their_masks_from_here() -> None:
    """A decoder's model makes its masks so, with what it says unchanged."""
    model: Any = random_model("llama")
    ids, mask = torch.arange(12).reshape(3, 4) + 5, torch.ones((3, 4), dtype=torch.long)
    mask[1, :2] = 0
    said = []
    decoder = Decoder(model)
    assert ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is step_mask.mask
    try:
        for function in (step_mask.mask, sdpa_mask):
            ALL_MASK_ATTENTION_FUNCTIONS.register("sdpa", function)
            _, cache = decoder.forward(ids[:, :3], mask[:, :3], None)
            said.append(decoder.forward(ids[:, 3:], mask, cache)[0])
    finally:
        ALL_MASK_ATTENTION_FUNCTIONS.register("sdpa", step_mask.mask)
    assert torch.equal(*said)
