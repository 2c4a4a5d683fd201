"""Unpacks nf4 on a CPU into memory that is there: bitsandbytes' own operator allocates its result.

It has the function that the operator calls, under a name of its own for each type.
"""

from ctypes import c_longlong

import torch
from bitsandbytes import functional
from bitsandbytes.cextension import BNBNativeLibrary, lib
from bitsandbytes.functional import QuantState, get_ptr
from torch import Tensor

BLOCK = 64
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def unpack(packed: Tensor, absmax: Tensor, code: Tensor, rows: Tensor) -> Tensor:
    """Two numbers a byte of `packed`, times float32 `absmax` of each `BLOCK`, in `rows`
    `(rows, columns)` or, where that cannot be, in memory of their own."""
    num_rows, num_columns = rows.shape
    if isinstance(lib, BNBNativeLibrary) and num_columns % 2 == 0:
        native = getattr(lib, f"cdequantize_blockwise_cpu_nf4_{TYPES[rows.dtype]}")
        sizes = map(c_longlong, (BLOCK, num_rows, num_columns))
        native(get_ptr(packed), get_ptr(absmax), get_ptr(rows), *sizes)
        return rows
    state = QuantState(
        absmax=absmax,
        shape=rows.shape,
        code=code,
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=rows.dtype,
    )
    return functional.dequantize_4bit(packed, state)
