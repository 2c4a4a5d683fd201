"""How many tokens the memory has room for, once the weights are in it."""

import torch

from deployments.placement.machine import available_ram_bytes

# The rest is for activations, for logits, for spare columns, and for the layer that is being copied
# when rows join.
SHARE_OF_GPU = 0.7
# Other replicas, and the system's file cache, live in the same memory.
SHARE_OF_RAM = 0.4


def num_free_tokens(device: torch.device, bytes_per_token: int) -> int:
    """How many tokens' keys and values may be kept on `device`."""
    if device.type == "cuda":
        free_bytes = SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]
    else:
        free_bytes = SHARE_OF_RAM * available_ram_bytes()
    return int(free_bytes) // bytes_per_token
