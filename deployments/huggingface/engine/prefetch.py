"""Small weights, read into the processor's own cache before a few rows are multiplied with them.

For a few rows torch's matrix multiplication (MKL, one thread, float32) reads a weight in an order
that the processor does not foresee, and waits for each line of it. Reading it from its first byte
to its last beforehand is foreseen, and both together take half to three quarters of the time where
what is read stays in the core's cache. It changes no bit of a result.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

# What a core's own cache (L2) of 1 MB holds. Of a larger weight the beginning is gone when the end
# is read.
MOST_NUMBERS = 1 << 18
# One row is multiplied in the order of the weight itself; for many, it is arithmetic that takes
# the time.
FEWEST_ROWS, MOST_ROWS = 2, 32


class Linear(nn.Linear):  # type: ignore[misc]
    """A layer that does so: a hook would cost part of what is gained. It is called as torch's own
    is, since some know layers by the names of their classes."""

    def forward(self, states: Tensor) -> Tensor:
        # Looked at here, not at the start: weights that stream are others at each pass. The bare
        # dictionary, since finding them as attributes takes as long as some of the arithmetic.
        parameters = self._parameters
        weight = parameters["weight"]
        is_small = weight.numel() <= MOST_NUMBERS and weight.is_cpu
        if is_small and FEWEST_ROWS <= states.numel() // states.shape[-1] <= MOST_ROWS:
            weight.sum()
        return linear(states, weight, parameters["bias"])


def install(model: Any) -> None:
    """Lets the float32 linear layers of a model on one thread of a CPU read their weights so.

    Several threads share a multiplication as they like, each with a cache of its own; half
    precision is multiplied by oneDNN.
    """
    if model.device.type != "cpu" or torch.get_num_threads() > 1:
        return
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.dtype == torch.float32:
            module.__class__ = Linear
