"""Small weights, read into the processor's own cache before a few rows are multiplied with them.

For a few rows torch's matrix multiplication (MKL, one thread, float32) reads a weight in an order
that the processor does not foresee, and waits for each line of it. Reading it from its first byte
to its last beforehand is foreseen, and both together take half to three quarters of the time where
what is read stays in the core's cache. It changes no bit of a result.
"""

from typing import Any

import torch
from torch import nn

# What a core's own cache (L2) holds. Of a larger weight the beginning is gone when the end is read.
MAX_BYTES = 1 << 20
# One row is multiplied in the order of the weight itself; for many, it is arithmetic that takes
# the time.
FEWEST_ROWS, MOST_ROWS = 2, 32


def install(model: Any) -> None:
    """Lets the float32 linear layers of a model on one thread of a CPU read their weights so.

    Several threads share a multiplication as they like, each with a cache of its own; half
    precision is multiplied by oneDNN.
    """
    if model.device.type != "cpu" or torch.get_num_threads() > 1:
        return
    for module in model.modules():
        is_linear = type(module) is nn.Linear and module.weight.dtype == torch.float32
        if is_linear and _read not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_read)


def _read(linear: Any, inputs: tuple[Any, ...]) -> None:
    # Looked at here, not at the start: weights that stream are others at each pass.
    weight, (states, *_) = linear.weight, inputs
    num_rows = states.numel() // states.shape[-1]
    if weight.is_cpu and weight.nbytes <= MAX_BYTES and FEWEST_ROWS <= num_rows <= MOST_ROWS:
        weight.sum()
