"""What `benchmarks offload` writes, and what it makes of what it measured."""

import time
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from benchmarks.machine import Machine
from benchmarks.offload import bloom, disk
from benchmarks.offload.compare import Found
from benchmarks.offload.disk_use import Watch
from benchmarks.offload.report import bars, report_of
from deployments.huggingface.streaming.ring import allocate

MACHINE = Machine("2026-11-20 15:00 UTC", 2, "a CPU", 24 * 2**30, {}, "abc", 0.0)


def step(batch: int, step_s: float, compute_s: float | None, read_bytes: float) -> dict[str, Any]:
    return {
        "batch": batch,
        "step_s": step_s,
        "compute_s": compute_s,
        "read_bytes": read_bytes,
        "disk_bandwidth": 2e9,
        "memory_bandwidth": None if compute_s is None else 1.8e9,
        "others_share": 0.0,
        "busy_share": None if compute_s is None else 0.95,
    }


def run_of(*steps: dict[str, Any]) -> dict[str, Any]:
    told = {"cap": "cgroup", "load_s": 1.0, "peak_bytes": 105, "planned_bytes": 100}
    return told | {"streamed_bytes": 4e9, "steps": list(steps)}


def test_bars() -> None:
    """The bound is the slower of disk and processor; the rest is against accelerate with the same
    plan, batch 1, the plan and what had to be read."""
    ours = run_of(
        step(1, 2.5, 0.5, 4e9),
        step(4, 2.5, 2.25, 4e9),
        step(8, 3.125, 0.5, 4e9),
        step(16, 4.0, 3.8, 3.8e9),
    )
    alone, int8 = run_of(step(1, 2.2, 0.5, 4e9)), run_of(step(1, 1.0, 0.9, 4e9))
    theirs = run_of(step(1, 5.0, None, 4e9))
    found = Found(MACHINE, 6 * 10**9, 3 * 2**30, ours, alone, {"int8": int8}, theirs, 0.5, 300)
    measured = [bar.measured for bar in bars(found)]
    of_bounds, of_accelerate = [0.8, 0.9, 0.64, 0.95, 2.0], [5.0 / 2.2, 5.0]
    assert measured == pytest.approx([*of_bounds, *of_accelerate, 0.8, 5.0, 0.95, 0.5])
    met = [bar.met for bar in bars(found)]
    assert met == [True, True, False, True, True, False, True, True, True, False, True]
    text = report_of(found).as_markdown()
    assert "PROVISIONAL" not in text
    assert (
        "| Roundhouse | 1 | 2.50 | 0.40 | 4.00 | 2.00 | 2.00 | 0.50 | 0.80 | 1.80 | 0.89 | 95.0 |"
        in text
    )
    assert "| accelerate | 1 | 5.00 | 0.20 | 4.00 | 2.00 | 2.00 | - | 0.40 | - | - | - |" in text
    assert "would be 2.50 times as fast as accelerate" in text


def test_how_busy_a_disk_was() -> None:
    """Reads that overlap count once, and the time between them does not."""
    watch = Watch()
    with watch.reading(), watch.reading():
        pass
    overlapping = watch.busy_s
    between = time.perf_counter()
    assert watch.busy_s == overlapping
    with watch.reading():
        began = time.perf_counter()
        while time.perf_counter() == began:
            pass
    assert overlapping < watch.busy_s <= overlapping + time.perf_counter() - between


def test_the_checkpoint(tmp_path: Path) -> None:
    """What is written is a whole Bloom as transformers reads it, with a tied head."""
    num_bytes = bloom.write(tmp_path, num_layers=1, vocab_size=512)
    model, told = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    stored = sum(weight.numel() for weight in model.parameters()) * 2
    assert stored <= num_bytes < stored + 100_000


def test_the_disk_is_measured_into_a_block_and_into_slots(tmp_path: Path) -> None:
    """Both bandwidths are told where there are slots, and all of their memory is read into."""
    bloom.write(tmp_path, num_layers=1, vocab_size=512)
    disk.forget(tmp_path)
    slots = [allocate(3 * disk.BLOCK_BYTES), allocate(2 * disk.BLOCK_BYTES)]
    with_slots = disk.Probe(tmp_path, [memoryview(slot.numpy()) for slot in slots])
    without = disk.Probe(tmp_path)
    with_slots.take()
    without.take()
    assert all(value and value > 0 for value in with_slots.bandwidths().values())
    assert without.bandwidths()["memory_bandwidth"] is None
    for slot in slots:
        assert all(block.any() for block in slot.split(disk.BLOCK_BYTES))
