"""Where a model goes: the order of the choices, what they take, and what would do instead."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.placement.arrangement import (
    CPU_LIBRARY_BYTES,
    DISK_SLOTS,
    GPU_LIBRARY_BYTES,
    Tier,
    arrange,
    least,
    slot_bytes,
)
from deployments.placement.bandwidth import Bandwidths
from deployments.placement.budget import Budget, Needs
from deployments.placement.demand import Model, demand
from deployments.placement.planner import QUANTIZATIONS, Plan, Question, make_plan, quantizations
from deployments.placement.report import report
from deployments.placement.workload import Workload

from .tensors import llama

BASE = 2**20
WORKLOAD = Workload(batch=2, context=64)
amounts = st.integers(0, 48 * 2**20)


@cache
def model() -> Model:
    with TemporaryDirectory() as folder:
        return llama(Path(folder), hidden_size=256, intermediate_size=512, num_hidden_layers=24)


def plan(gpu: int, cpu: int, disk: int | None = None, *allowed: str) -> Plan:
    budget = Budget(gpu, cpu, disk, base_bytes=BASE)
    return make_plan(Question(model(), WORKLOAD, budget, allowed or ("none",)))


def name(made: Plan) -> str | None:
    return made.chosen.name if made.chosen else None


ASKED = {kind: demand(model(), kind, WORKLOAD) for kind in QUANTIZATIONS}
EXACT = ASKED["none"]
LAYER, SLOT = EXACT.layers[0], slot_bytes(EXACT)
FIXED = EXACT.outer + EXACT.working.total_bytes
GPU = FIXED + GPU_LIBRARY_BYTES
GPU_RESIDENT = GPU + EXACT.working.joining_bytes
CPU = BASE + CPU_LIBRARY_BYTES


def test_order_on_a_cpu() -> None:
    """Resident; quantised, if that is allowed; streamed from disk; or the least that would do."""
    working = EXACT.working.total_bytes + EXACT.working.joining_bytes
    resident = CPU + working + EXACT.weight_bytes
    assert name(plan(0, resident)) == "resident"
    assert name(plan(0, resident - 1)) is None
    assert name(plan(0, resident - 1, 0)) == "streamed from disk"
    assert name(plan(0, resident - 1, 0, *QUANTIZATIONS)) == "resident, int8"
    int8 = CPU + ASKED["int8"].resident_on_cpu
    assert name(plan(0, int8 - 1, 0, *QUANTIZATIONS)) == "resident, nf4"
    streamed = CPU + FIXED + DISK_SLOTS * SLOT
    assert name(plan(0, streamed, 0)) == "streamed from disk"
    assert name(plan(0, streamed - 1, 0)) is None


def test_a_resident_model_works_when_it_is_packed() -> None:
    """Of what packing a matrix takes and of what a step takes, RAM must have the larger."""
    int8 = ASKED["int8"]
    work = int8.unpacked + int8.working.total_bytes + int8.working.joining_bytes
    for packing, more in ((0, work), (work - 1, work), (work + 5, work + 5)):
        asked = replace(int8, packing=packing)
        assert asked.resident_on_cpu == int8.weight_bytes + more
        assert least(asked, Tier.RESIDENT, Budget(0, 0, 0, BASE)).cpu_bytes == CPU + (
            asked.resident_on_cpu
        )


def test_order_on_a_gpu() -> None:
    """Streamed from RAM comes between resident and disk, and takes RAM for what is streamed."""
    assert name(plan(GPU_RESIDENT + 24 * LAYER, BASE)) == "resident"
    some = plan(GPU + 2 * SLOT + 10 * LAYER, BASE + 14 * LAYER)
    assert name(some) == "streamed from RAM"
    assert some.arrangement
    assert some.arrangement.tiers.count(Tier.RESIDENT) == 10
    assert some.arrangement.link_bytes == 14 * LAYER
    assert some.arrangement.host_bytes == BASE + 14 * LAYER
    mixed = plan(GPU + 2 * SLOT + 10 * LAYER, BASE + DISK_SLOTS * SLOT + 5 * LAYER, 0)
    assert name(mixed) == "streamed from disk"
    assert mixed.arrangement
    counts = [mixed.arrangement.tiers.count(tier) for tier in Tier]
    assert counts == [10, 5, 9]
    assert (mixed.arrangement.link_bytes, mixed.arrangement.read_bytes) == (14 * LAYER, 9 * LAYER)


def test_streamed_layers_are_evenly_spaced() -> None:
    """Between two streamed layers there are about as many resident ones everywhere."""
    made = plan(GPU + 2 * SLOT + 18 * LAYER, BASE + 6 * LAYER)
    assert made.arrangement
    streamed = [i for i, tier in enumerate(made.arrangement.tiers) if tier is Tier.RAM]
    assert streamed == [0, 4, 8, 12, 16, 20]


def test_what_fits_only_unpacked_by_blocks() -> None:
    """Where all quantised layers fit, but no whole matrix of them unpacked, one of them streams,
    and matrices are unpacked by blocks."""
    large = replace(ASKED["nf4"], unpacked=2**27, scratch=2**27, block_scratch=2**20)
    needs = least(large, Tier.RESIDENT, Budget(0, 0, 0, BASE))
    budget = Budget(0, needs.cpu_bytes - 1, 0, BASE)
    arranged = arrange(large, Tier.DISK, budget)
    assert arranged.tiers.count(Tier.DISK) == 1
    assert arranged.read_bytes == large.layers[0]
    assert arranged.host_bytes <= budget.cpu_bytes


def test_quantized_checkpoints_do_not_stream() -> None:
    """One that is stored quantised is resident, or refused with the budget for that; `auto` does
    not quantise it once more."""
    stored = replace(model(), geometry=replace(model().geometry, is_quantized=True))
    budget = Budget(0, CPU + FIXED + DISK_SLOTS * SLOT, 2**40, BASE)
    made = make_plan(Question(stored, WORKLOAD, budget, quantizations(stored, "auto")))
    assert made.chosen is None
    told = {no.candidate.name: no.reason for no in made.rejections}
    assert "cannot be streamed" in told["streamed from disk"]
    assert "resident, int8" not in told
    assert made.smallest
    assert made.smallest.name == "resident"


def test_every_better_choice_says_why_not() -> None:
    """Each way that was passed over tells what it needs and what there is."""
    made = plan(0, CPU + FIXED + 4 * LAYER, 0, *QUANTIZATIONS)
    told = {no.candidate.name: no.reason for no in made.rejections}
    assert "of RAM, there is" in told["resident, nf4"]
    assert "without a GPU" in told["streamed from RAM"]
    assert [*told][:3] == ["resident", "resident, int8", "resident, nf4"]


def test_repacked_weights_need_disk() -> None:
    """Weights that cannot be read as they are stored are written anew, if there is room."""
    cpu = CPU + ASKED["nf4"].fixed + 4 * SLOT
    size = sum(ASKED["nf4"].layers)
    assert name(plan(0, cpu, 0, "none")) == "streamed from disk"
    assert name(plan(0, cpu, size - 1, "nf4")) is None
    assert name(plan(0, cpu, size, "nf4")) == "streamed from disk, nf4"


@settings(deadline=None)
@given(amounts, amounts, st.booleans(), st.sampled_from([("none",), ("nf4",), QUANTIZATIONS]))
def test_the_smallest_budget_is_enough_and_no_less_is(
    gpu: int, cpu: int, has_gpu: bool, allowed: tuple[str, ...]
) -> None:
    """What a refusal says would do, does; and a byte less of any memory does not."""
    refused = plan(gpu + 1 if has_gpu else 0, cpu, None, *allowed)
    if refused.chosen is None:
        assert refused.smallest
        needs = refused.smallest.needs
        assert plan(*amounts_of(needs), *allowed).chosen
        for less in shortened(needs):
            made = plan(*amounts_of(less), *allowed)
            assert made.chosen is None or made.chosen.name != refused.smallest.name


def amounts_of(needs: Needs) -> tuple[int, int, int | None]:
    return needs.gpu_bytes, needs.cpu_bytes, needs.disk_bytes


def shortened(needs: Needs) -> list[Needs]:
    fewer = [replace(needs, cpu_bytes=needs.cpu_bytes - 1)]
    if needs.gpu_bytes:
        fewer.append(replace(needs, gpu_bytes=needs.gpu_bytes - 1))
    if needs.disk_bytes:
        fewer.append(replace(needs, disk_bytes=needs.disk_bytes - 1))
    return fewer


def rank(made: Plan) -> tuple[int, int, int]:
    """How good a plan is: smaller is better."""
    if made.arrangement is None:
        return len(QUANTIZATIONS) * len(Tier), 0, 0
    return len(made.rejections), made.arrangement.read_bytes, made.arrangement.link_bytes


@pytest.mark.parametrize("has_gpu", [False, True])
@settings(deadline=None)
@given(data=st.data())
def test_more_memory_is_never_worse(has_gpu: bool, data: st.DataObject) -> None:
    """With more of anything the choice is as good or better, and no more is moved in a step."""
    least = GPU if has_gpu else 0
    gpu, cpu = data.draw(amounts), data.draw(amounts)
    disk = data.draw(st.none() | amounts)
    allowed = data.draw(st.sampled_from([("none",), ("int8",), QUANTIZATIONS]))
    more = [data.draw(amounts) for _ in range(3)]
    before = plan(least + gpu if has_gpu else 0, CPU + cpu, disk, *allowed)
    after = plan(
        least + gpu + more[0] if has_gpu else 0,
        CPU + cpu + more[1],
        data.draw(st.none() | amounts) if disk is None else disk + more[2],
        *allowed,
    )
    assert rank(after) <= rank(before)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.booleans())
def test_a_plan_stays_within_its_budget(gpu: int, cpu: int, has_gpu: bool) -> None:
    """Nothing takes more than it was given."""
    budget = Budget(GPU + gpu * LAYER if has_gpu else 0, CPU + cpu * LAYER, 0, BASE)
    made = make_plan(Question(model(), WORKLOAD, budget))
    if made.arrangement:
        device = budget.gpu_bytes if has_gpu else budget.cpu_bytes
        assert made.arrangement.device_bytes <= device
        assert made.arrangement.host_bytes <= budget.cpu_bytes


def test_largest_batch_and_context() -> None:
    """What is said to fit at the most, fits, and one more does not."""
    made = plan(0, CPU + FIXED + 40 * LAYER)
    placed = report(made, Bandwidths()).placement
    assert placed
    asked = made.question
    for workload, fits in (
        (replace(WORKLOAD, batch=placed.max_batch), True),
        (replace(WORKLOAD, batch=placed.max_batch + 1), False),
        (replace(WORKLOAD, context=placed.max_context), True),
    ):
        again = make_plan(replace(asked, workload=workload))
        assert (again.chosen is not None) is fits
    assert placed.max_context <= 4096


def test_the_bound_is_that_of_the_slowest_road() -> None:
    """A step takes as long as the disk, the link or the memory needs for what it must move."""
    made = plan(GPU + 2 * SLOT + 10 * LAYER, BASE + DISK_SLOTS * SLOT + 5 * LAYER, 0)
    speeds = Bandwidths(memory=100e9, link=10e9, disk=1e9)
    placed = report(made, speeds).placement
    assert placed
    assert placed.speed.limited_by == "disk"
    assert placed.speed.step_s == pytest.approx(9 * LAYER / 1e9)
    assert placed.speed.tokens_per_s == pytest.approx(2 / placed.speed.step_s)
    faster = report(made, replace(speeds, disk=100e9)).placement
    assert faster
    assert faster.speed.limited_by == "link"
    assert faster.speed.step_s == pytest.approx(14 * LAYER / 10e9)
