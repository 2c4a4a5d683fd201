"""Linear layers whose weights stay packed, in 8 or 4 bits, and are unpacked when they are used.

bitsandbytes packs and unpacks. Its own modules cannot be used here: they move their weights to
where it suits their kernels, out of the slots that these must stay in.

A CPU unpacks some rows of a matrix at a time, as many as its caches hold, and multiplies by them:
a whole matrix would be written to memory and read again. They are unpacked in memory that is kept:
the system has to clear what it gives anew. The numbers are the same.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from bitsandbytes import functional
from bitsandbytes.functional import QuantState
from torch import Tensor, nn
from torch.nn.functional import linear

from deployments.huggingface.streaming import nf4
from deployments.huggingface.streaming.nf4 import BLOCK
from deployments.huggingface.streaming.scratch import Scratch
from deployments.placement.demand import BLOCK_NUMBERS, SCRATCH_BYTES

PARTS = {"int8": ("scale",), "nf4": ("absmax", "nested", "offset")}
NESTED_BLOCK = 256
INT8_STEP = 7.874015718698502e-3  # 1/127, as bitsandbytes has it
SCRATCH = Scratch()  # for all models of a process: they compute in turn


class PackedLinear(nn.Module):  # type: ignore[misc]
    """What `nn.Linear` computes. Its buffers are empty until they are put in."""

    def __init__(self, kind: str, shape: tuple[int, int], dtype: torch.dtype, bias: bool) -> None:
        """`shape` `(out, in)` and `dtype` are those of the unpacked weight."""
        super().__init__()
        self._kind, self._shape, self._dtype = kind, shape, dtype
        for name in ("weight", *PARTS[kind]):
            self.register_buffer(name, None)
        self.register_parameter("bias", None)
        if bias:
            self.bias = nn.Parameter(torch.empty(0, device="meta"), requires_grad=False)

    def forward(self, states: Tensor) -> Tensor:
        num_rows, num_columns = self._shape
        step = _num_rows_at_once(num_columns) if states.device.type == "cpu" else num_rows
        if num_rows <= step:
            return linear(states, self._unpacked(), self.bias)
        out = states.new_empty(*states.shape[:-1], num_rows)
        with SCRATCH.held(step * num_columns * SCRATCH_BYTES) as scratch:
            unpack = self._by_rows(step, scratch)
            for start in range(0, num_rows, step):
                end = min(start + step, num_rows)
                bias = None if self.bias is None else self.bias[start:end]
                out[..., start:end] = linear(states, unpack(start, end), bias)
        return out

    def _unpacked(self) -> Tensor:
        if self._kind == "int8":
            weight = functional.int8_vectorwise_dequant(self.weight, self.scale)
            return weight.to(self._dtype)
        return functional.dequantize_4bit(self.weight, self._quant_state())

    def _by_rows(self, most: int, scratch: Tensor) -> Callable[[int, int], Tensor]:
        """What unpacks rows from one to before another, at most so many, until it is called again;
        the first is a multiple of `BLOCK`. `scratch` has `SCRATCH_BYTES` for each number."""
        half = len(scratch) // 2
        exact = scratch[:half].view(torch.float32).view(most, self._shape[1])
        if self._kind == "int8" and self._dtype == exact.dtype:
            return self._int8_by_rows(exact, exact)
        num_bytes = exact.numel() * self._dtype.itemsize
        rounded = scratch[half : half + num_bytes].view(self._dtype).view(exact.shape)
        if self._kind == "int8":
            return self._int8_by_rows(exact, rounded)
        return self._nf4_by_rows(rounded)

    def _int8_by_rows(self, exact: Tensor, rounded: Tensor) -> Callable[[int, int], Tensor]:
        def unpack(start: int, end: int) -> Tensor:
            # In place, and each a cast or a product of one type, unlike bitsandbytes' own way.
            rows = exact[: end - start].copy_(self.weight[start:end])
            rows.mul_(self.scale[start:end, None]).mul_(INT8_STEP)
            return rows if rounded is exact else rounded[: end - start].copy_(rows)

        return unpack

    def _nf4_by_rows(self, rounded: Tensor) -> Callable[[int, int], Tensor]:
        num_columns, packed, whole = self._shape[1], self.weight.view(-1), self._quant_state()
        absmax = functional.dequantize_blockwise(whole.absmax, whole.state2) + whole.offset

        def unpack(start: int, end: int) -> Tensor:
            first, last = start * num_columns, end * num_columns
            part = packed[first // 2 : -(-last // 2)]
            scales = absmax[first // BLOCK : -(-last // BLOCK)]
            return nf4.unpack(part, scales, whole.code, rounded[: end - start])

        return unpack

    def _quant_state(self) -> QuantState:
        code, nested_code = _codes(self.weight.device)
        nested = QuantState(
            absmax=self.nested, code=nested_code, blocksize=NESTED_BLOCK, dtype=torch.float32
        )
        return QuantState(
            absmax=self.absmax,
            shape=torch.Size(self._shape),
            code=code,
            blocksize=BLOCK,
            quant_type="nf4",
            dtype=self._dtype,
            offset=self.offset.reshape(()),
            state2=nested,
        )


def _num_rows_at_once(num_columns: int) -> int:
    """With so many a block of the weights' begins where they do."""
    return max(1, BLOCK_NUMBERS // num_columns // BLOCK) * BLOCK


def pack(weight: Tensor, kind: str) -> dict[str, Tensor]:
    """The packed weight and its parts, by the names of `PackedLinear`'s buffers. Some rows at a
    time: bitsandbytes takes up to 14 bytes a number meanwhile."""
    pieces = weight.split(_num_rows_at_once(weight.shape[1]))
    if kind == "int8":
        rows = [functional.int8_vectorwise_quant(piece.half().contiguous()) for piece in pieces]
        packed, scales, _ = zip(*rows, strict=True)
        return {"weight": torch.cat(packed), "scale": torch.cat(scales)}
    blocks = [
        functional.quantize_4bit(piece.contiguous(), blocksize=BLOCK, quant_type="nf4")
        for piece in pieces
    ]
    absmax = torch.cat([state.absmax for _, state in blocks])
    offset = absmax.mean()  # as bitsandbytes compresses statistics
    scales, nested = functional.quantize_blockwise(absmax - offset, blocksize=NESTED_BLOCK)
    return {
        "weight": torch.cat([packed for packed, _ in blocks]),
        "absmax": scales,
        "nested": nested.absmax,
        "offset": offset.reshape(1),
    }


def linear_weight(module: Any, name: str) -> bool | None:
    """Whether a parameter is a linear layer's weight: True, False if transposed, None if not."""
    owner, _, leaf = name.rpartition(".")
    layer = module.get_submodule(owner)
    if leaf != "weight":
        return None
    if isinstance(layer, nn.Linear):
        return True
    return False if type(layer).__name__ == "Conv1D" else None


def replace(layer: nn.Module, name: str, kind: str, dtype: torch.dtype) -> None:
    """Puts a packed layer in the place of the linear one whose weight is called `name`."""
    path = name.rpartition(".")[0]
    old = layer.get_submodule(path)
    rows, columns = old.weight.shape
    shape = (rows, columns) if isinstance(old, nn.Linear) else (columns, rows)
    owner, _, leaf = path.rpartition(".")
    packed = PackedLinear(kind, shape, dtype, old.bias is not None)
    setattr(layer.get_submodule(owner), leaf, packed)


@cache
def _codes(device: torch.device) -> tuple[Tensor, Tensor]:
    """The tables of nf4, and of the bytes that its scales are packed in."""
    code = functional.get_4bit_type("nf4", device=device, blocksize=BLOCK)
    return code, functional.create_dynamic_map().to(device)
