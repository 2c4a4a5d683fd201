"""Where packed matrices are unpacked on a CPU."""

from threading import Thread

import pytest
import torch
from bitsandbytes import functional

from deployments.huggingface.streaming import nf4
from deployments.huggingface.streaming.packed import SCRATCH, PackedLinear, pack
from deployments.huggingface.streaming.scratch import Scratch
from deployments.placement.demand import BLOCK_NUMBERS, SCRATCH_BYTES

SHAPE = 2 * BLOCK_NUMBERS // 1024, 1024


def packed_linear(quantization: str, dtype: torch.dtype) -> PackedLinear:
    layer = PackedLinear(quantization, SHAPE, dtype, bias=False)
    for name, part in pack(torch.randn(SHAPE, dtype=dtype), quantization).items():
        setattr(layer, name, part)
    return layer


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_layers_are_unpacked_in_the_same_memory(quantization: str) -> None:
    """No layer takes memory of its own for what it unpacks, nor more than was planned, with
    gradients switched off or not."""
    layer, states = packed_linear(quantization, torch.bfloat16), torch.randn(3, SHAPE[1]).bfloat16()
    with torch.inference_mode():
        first = layer(states)
    with SCRATCH.held(BLOCK_NUMBERS * SCRATCH_BYTES) as memory:
        assert memory.untyped_storage().nbytes() == memory.numel()
        address = memory.zero_().data_ptr()
    with torch.no_grad():
        assert torch.equal(layer(states), first)
    with SCRATCH.held(BLOCK_NUMBERS * SCRATCH_BYTES) as memory:
        assert memory.data_ptr() == address
        assert memory.any()


def test_memory_is_one_threads_at_a_time() -> None:
    """Who asks for memory that another has waits for it, and what is larger is had, too."""
    scratch, order = Scratch(), []

    def second() -> None:
        with scratch.held(2 * 4096) as memory:
            order.append(("second", len(memory)))

    with scratch.held(4096) as memory:
        thread = Thread(target=second)
        thread.start()
        order.append(("first", len(memory)))
    thread.join()
    assert order == [("first", 4096), ("second", 8192)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_columns", [64, 96, 65])
def test_nf4_is_unpacked_as_bitsandbytes_does(num_columns: int, dtype: torch.dtype) -> None:
    """The same numbers as its operator's, with an odd number of columns, too."""
    weight = torch.randn(128, num_columns, dtype=dtype)
    packed, state = functional.quantize_4bit(weight, blocksize=nf4.BLOCK, quant_type="nf4")
    rows = nf4.unpack(packed, state.absmax, state.code, torch.full_like(weight, torch.nan))
    assert torch.equal(rows, functional.dequantize_4bit(packed, state))
