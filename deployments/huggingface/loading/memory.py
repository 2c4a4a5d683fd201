"""How many tokens the memory has room for beside the weights, as planned or as measured."""

import torch

from deployments.placement.machine import available_ram_bytes
from deployments.placement.planner import Plan

# The rest is for activations, for logits, for spare columns, and for the layer that is being copied
# when rows join.
SHARE_OF_GPU = 0.7
# Other replicas, and the system's file cache, live in the same memory.
SHARE_OF_RAM = 0.4


def num_free_tokens(device: torch.device, bytes_per_token: int) -> int:
    """How many tokens' keys and values may be kept on `device`."""
    if device.type == "cuda":
        free_bytes = SHARE_OF_GPU * free_gpu_bytes(device)
    else:
        free_bytes = SHARE_OF_RAM * available_ram_bytes()
    return int(free_bytes) // bytes_per_token


def free_gpu_bytes(device: torch.device) -> int:
    """What this process can still allocate: what is free, within its part of a GPU it shares."""
    free, total = torch.cuda.mem_get_info(device)
    limit = int(torch.cuda.get_per_process_memory_fraction(device) * total)
    return max(0, min(int(free), limit - int(torch.cuda.memory_allocated(device))))


def num_planned_tokens(plan: Plan) -> int:
    """How many tokens' keys and values the budget that was planned with has room for. A model
    whose weights stream has what was asked for: the rest keeps layers resident."""
    workload, budget = plan.question.workload, plan.question.budget
    num_asked = workload.batch * workload.context
    if plan.streams or plan.arrangement is None or plan.chosen is None:
        return num_asked
    spare = (
        budget.gpu_bytes if budget.has_gpu else budget.cpu_bytes
    ) - plan.arrangement.device_bytes
    cache_bytes = plan.chosen.demand.working.cache_bytes
    return num_asked + spare * num_asked // max(1, cache_bytes)
