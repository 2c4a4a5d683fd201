"""The mask of a step's new tokens, one in each row, for torch's fused attention.

transformers makes every mask from rules about columns, in more than twenty operations, at every
step. The newest token of a row may look at all columns before it: its mask is the row's padding.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionMaskInterface
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    causal_mask_function,
    sdpa_mask,
)


def install() -> None:
    """Lets every model of this process that runs with sdpa attention have its masks from here.
    Others that have been registered in the place of transformers' own are left there."""
    if ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is sdpa_mask:
        AttentionMaskInterface.register("sdpa", mask)


def mask(**options: Any) -> Tensor | None:
    """What transformers' `sdpa_mask` gives for the same options: `(batch, 1, new, columns)`, True
    where a token looks; None where it need not be said."""
    padding = options.get("attention_mask")
    if padding is None or not _is_plain_step(padding, options) or padding.all():
        made: Tensor | None = sdpa_mask(**options)
        return made
    return padding[:, None, None]


def _is_plain_step(padding: Tensor, options: dict[str, Any]) -> bool:
    """Whether there is one new token, the last of all columns, which sees every one of them."""
    num_columns = options["kv_length"]
    return (
        options["q_length"] == 1
        and options.get("mask_function") is causal_mask_function
        and options.get("q_offset") == num_columns - 1
        and options.get("kv_offset") == 0
        and padding.shape[1:] == (num_columns,)
        and padding.dtype == torch.bool
    )
