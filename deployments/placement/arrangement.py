"""The ways to arrange a model's layers over GPU, RAM and disk, and what each needs at the least.

A layer that is not resident passes through a ring of slots: on a GPU two of them, and from disk
through others in RAM.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from deployments.placement.budget import Budget, Needs
from deployments.placement.demand import Demand

GPU_SLOTS = 2
DISK_SLOTS = 3
PAGE_BYTES = 4096
SLOT_SPARE_BYTES = 16 * PAGE_BYTES  # what direct reads of a layer's ranges take around them
CPU_LIBRARY_BYTES = 40 * 2**20  # what libraries and threads take on their first use
GPU_LIBRARY_BYTES = 512 * 2**20  # the CUDA libraries' own, and what fragments


class Tier(StrEnum):
    """Where a layer's weights are between two steps."""

    RESIDENT = "resident"
    RAM = "ram"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A tier for each layer, and how much of what that takes."""

    tiers: tuple[Tier, ...]
    device_bytes: int
    host_bytes: int
    disk_bytes: int
    link_bytes: int  # copied from RAM to the GPU in each step
    read_bytes: int  # read from disk in each step
    num_slots: int


def slot_bytes(demand: Demand) -> int:
    """A slot that any layer fits in."""
    pages = -(-max(demand.layers) // PAGE_BYTES)
    return pages * PAGE_BYTES + SLOT_SPARE_BYTES


def least(demand: Demand, tier: Tier, budget: Budget) -> Needs:
    """The smallest budget in which the model can be arranged so, with or without a GPU as
    `budget` has one. A GPU that has room for more than that saves RAM: it counts as it is."""
    fixed, joining = demand.fixed, demand.working.joining_bytes
    layers, slot = sum(demand.layers), slot_bytes(demand)
    disk = layers if demand.repacked else 0
    if not budget.has_gpu:
        own = budget.base_bytes + CPU_LIBRARY_BYTES
        if tier is Tier.RESIDENT:
            return Needs(0, own + demand.resident_on_cpu)
        own += demand.fixed_in_blocks
        return Needs(0, own + _num_slots(demand) * slot, disk)
    fixed += GPU_LIBRARY_BYTES
    if tier is Tier.RESIDENT:
        return Needs(fixed + layers + joining, budget.base_bytes)
    gpu = fixed + GPU_SLOTS * slot
    if tier is Tier.RAM:
        tiers = _filled(demand, [*range(len(demand.layers))], budget.gpu_bytes - gpu)
        return Needs(gpu, budget.base_bytes + _sum(demand, tiers, Tier.RAM))
    return Needs(gpu, budget.base_bytes + _num_slots(demand) * slot, disk)


def arrange(demand: Demand, tier: Tier, budget: Budget) -> Arrangement:
    """The layers arranged so that the least is moved in a step, in a budget of at least what
    `least` says."""
    needs, indices = least(demand, tier, budget), [*range(len(demand.layers))]
    room = budget.gpu_bytes - needs.gpu_bytes
    if tier is Tier.RESIDENT:
        tiers = [Tier.RESIDENT for _ in indices]
    elif not budget.has_gpu:
        # All layers might fit unpacked by blocks, which only what streams is: then one streams.
        room = min(budget.cpu_bytes - needs.cpu_bytes, sum(demand.layers) - 1)
        tiers = _filled(demand, indices, room, rest=Tier.DISK)
    else:
        tiers = _filled(demand, indices, room)
    if budget.has_gpu and tier is Tier.DISK:
        streamed = [index for index in indices if tiers[index] is Tier.RAM]
        room_in_ram = budget.cpu_bytes - needs.cpu_bytes
        kinds = _filled(demand, streamed, room_in_ram, Tier.RAM, Tier.DISK)
        tiers = [kind if index in streamed else tiers[index] for index, kind in enumerate(kinds)]
    return _arrangement(demand, tuple(tiers), tier, budget)


def _arrangement(
    demand: Demand, tiers: tuple[Tier, ...], tier: Tier, budget: Budget
) -> Arrangement:
    needs = least(demand, tier, budget)
    resident, ram, disk = (_sum(demand, tiers, tier) for tier in Tier)
    added = 0 if tier is Tier.RESIDENT else resident  # what the least has already
    host = needs.cpu_bytes + (ram if tier is Tier.DISK else 0)
    return Arrangement(
        tiers=tiers,
        device_bytes=(needs.gpu_bytes if budget.has_gpu else host) + added,
        host_bytes=host + (0 if budget.has_gpu else added),
        disk_bytes=disk if demand.repacked else 0,
        link_bytes=ram + disk if budget.has_gpu else 0,
        read_bytes=disk,
        num_slots=_num_slots(demand) if disk else 0,
    )


def _num_slots(demand: Demand) -> int:
    return min(DISK_SLOTS, len(demand.layers))


def _sum(demand: Demand, tiers: Sequence[Tier], tier: Tier) -> int:
    return sum(size for size, at in zip(demand.layers, tiers, strict=True) if at is tier)


def _filled(
    demand: Demand,
    indices: list[int],
    room: int,
    kept: Tier = Tier.RESIDENT,
    rest: Tier = Tier.RAM,
) -> list[Tier]:
    """Tiers for all layers: of `indices`, those that `room` bytes have place for are `kept`, the
    others go to `rest`, evenly spaced, so that what moves them has work all the step."""
    best = [rest for _ in demand.layers]
    for num_rest in range(len(indices)):
        moved = {indices[i * len(indices) // num_rest] for i in range(num_rest)}
        tiers = [kept if i in indices and i not in moved else rest for i in range(len(best))]
        fits = _sum(demand, tiers, kept) <= room
        if fits and _sum(demand, tiers, rest) < _sum(demand, best, rest):
            best = tiers
    return best
