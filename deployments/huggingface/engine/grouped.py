"""Attention of a step's new tokens, where several heads share their keys and values (GQA, MQA).

Behind a mask transformers copies all keys and values for each of the heads that share them, at
every step: no fused kernel takes both. The one new token of a row needs no copies: the heads that
share keys are to a kernel what several tokens with the same mask would be.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

OTHERWISE = ("position_bias", "cache", "s_aux")


def install() -> None:
    """Lets every model of this process that runs with transformers' sdpa attention run with this.
    Another that has been registered in its place is left there."""
    if ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward:
        AttentionInterface.register("sdpa", attention)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers' sdpa attention does `(batch, new, heads, size)`, with less copying.

    `query` is `(batch, heads, new, size)`, `key` and `value` have fewer heads. Some architectures
    name what they pass, so the names are transformers'.
    """
    batch, num_heads, num_new, size = query.shape
    shares_keys = num_heads != key.shape[1] and num_new == 1
    is_plain = attention_mask is not None and attention_mask.shape[1] == 1
    if not (shares_keys and is_plain) or any(options.get(name) is not None for name in OTHERWISE):
        passed: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return passed
    output = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(batch, key.shape[1], -1, size),
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=options.get("dropout", 0.0),
        scale=options.get("scaling"),
    )
    return output.reshape(batch, 1, num_heads, -1), None
