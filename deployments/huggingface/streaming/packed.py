"""Linear layers whose weights stay packed, in 8 or 4 bits, and are unpacked when they are used.

bitsandbytes packs and unpacks. Its own modules cannot be used here: they move their weights to
where it suits their kernels, out of the slots that these must stay in.
"""

from functools import cache
from typing import Any

import torch
from bitsandbytes import functional
from bitsandbytes.functional import QuantState
from torch import Tensor, nn

PARTS = {"int8": ("scale",), "nf4": ("absmax", "nested", "offset")}
BLOCK = 64
NESTED_BLOCK = 256


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
        return nn.functional.linear(states, self._unpacked(), self.bias)

    def _unpacked(self) -> Tensor:
        if self._kind == "int8":
            weight = functional.int8_vectorwise_dequant(self.weight, self.scale)
            return weight.to(self._dtype)
        return functional.dequantize_4bit(self.weight, self._quant_state())

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


def pack(weight: Tensor, kind: str) -> dict[str, Tensor]:
    """The packed weight and its parts, by the names of `PackedLinear`'s buffers."""
    if kind == "int8":
        packed, scale, _ = functional.int8_vectorwise_quant(weight.to(torch.float16).contiguous())
        return {"weight": packed, "scale": scale}
    packed, state = functional.quantize_4bit(
        weight.contiguous(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
    )
    return {
        "weight": packed,
        "absmax": state.absmax,
        "nested": state.state2.absmax,
        "offset": state.offset.reshape(1),
    }


def linear_weight(module: Any, name: str) -> bool | None:
    """Whether a parameter is a linear layer's weight: True, False if transposed, None if not."""
    owner, _, leaf = name.rpartition(".")
    linear = module.get_submodule(owner)
    if leaf != "weight":
        return None
    if isinstance(linear, nn.Linear):
        return True
    return False if type(linear).__name__ == "Conv1D" else None


def replace(layer: nn.Module, name: str, kind: str, dtype: torch.dtype) -> None:
    """Puts a packed layer in the place of the linear one whose weight is called `name`."""
    path = name.rpartition(".")[0]
    linear = layer.get_submodule(path)
    rows, columns = linear.weight.shape
    shape = (rows, columns) if isinstance(linear, nn.Linear) else (columns, rows)
    owner, _, leaf = path.rpartition(".")
    packed = PackedLinear(kind, shape, dtype, linear.bias is not None)
    setattr(layer.get_submodule(owner), leaf, packed)


@cache
def _codes(device: torch.device) -> tuple[Tensor, Tensor]:
    """The tables of nf4, and of the bytes that its scales are packed in."""
    code = functional.get_4bit_type("nf4", device=device, blocksize=BLOCK)
    return code, functional.create_dynamic_map().to(device)
