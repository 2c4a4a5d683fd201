"""Quantising on a CPU some rows at a time: of a whole matrix bitsandbytes holds up to 14 bytes for
each number meanwhile, which may be more than all that the model takes once it is loaded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from bitsandbytes import functional
from bitsandbytes.functional import QuantState
from torch import Tensor

from deployments.placement.demand import BLOCK_NUMBERS

NESTED_BLOCK = 256


@contextmanager
def by_pieces() -> Iterator[None]:
    """Inside, bitsandbytes quantises so, with the same bytes as a result; nothing else may be
    quantised or multiplied in int8 meanwhile."""
    of_four_bits, of_eight_bits = functional.quantize_4bit, functional.int8_vectorwise_quant

    def quantize_4bit(weight: Tensor, **options: Any) -> Any:
        if weight.device.type != "cpu" or not options["compress_statistics"]:
            return of_four_bits(weight, **options)
        options["compress_statistics"] = False
        pieces = weight.reshape(-1).split(BLOCK_NUMBERS)
        found = [of_four_bits(piece, **options) for piece in pieces]
        state: QuantState = found[0][1]
        state.shape = weight.shape
        _compress(state, torch.cat([state.absmax for _, state in found]))
        return torch.cat([packed for packed, _ in found]), state

    def int8_vectorwise_quant(weight: Tensor, threshold: float = 0.0) -> Any:
        if weight.device.type != "cpu" or threshold or weight.dim() != 2:
            return of_eight_bits(weight, threshold)
        pieces = weight.split(max(1, BLOCK_NUMBERS // weight.shape[1]))
        packed, scales, _ = zip(*map(of_eight_bits, pieces), strict=True)
        return torch.cat(packed), torch.cat(scales), None

    functional.quantize_4bit = quantize_4bit
    functional.int8_vectorwise_quant = int8_vectorwise_quant
    try:
        yield
    finally:
        functional.quantize_4bit = of_four_bits
        functional.int8_vectorwise_quant = of_eight_bits


def _compress(state: QuantState, absmax: Tensor) -> None:
    """Packs the scales of blocks, as bitsandbytes does."""
    offset = absmax.mean()
    state.absmax, state.state2 = functional.quantize_blockwise(
        absmax - offset, blocksize=NESTED_BLOCK
    )
    state.offset, state.nested = offset, True
