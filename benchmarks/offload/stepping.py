"""A process that loads a checkpoint under a cap on its memory and takes decode steps.

Run as a module with a JSON of settings; prints a JSON of what it measured.
"""

import json
import sys
import time
from concurrent.futures import wait
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch

from benchmarks.cpu_use import cpu_s
from benchmarks.memory_cap import capped, forget_peak, status
from benchmarks.offload import disk
from benchmarks.offload.disk_use import busy_share
from deployments.config import HuggingFaceConfig
from deployments.huggingface import build, engine  # noqa: F401 - part of the base, not of the model
from deployments.huggingface.checkpoint import check_folder
from deployments.huggingface.decoder import Decoder
from deployments.huggingface.loader import load
from deployments.huggingface.placing import place
from deployments.huggingface.rehearsal import empty_cache
from deployments.huggingface.streaming.borrowed import borrowed_weights
from deployments.placement.planner import Plan
from deployments.progress import unreported

CONTEXT = 64
SPARE_BYTES = 128 * 2**20  # of the cap, that the plan may not use


def main(asked: dict[str, Any]) -> dict[str, Any]:
    limit, folder = asked["limit_bytes"], Path(asked["folder"])
    memory = {
        "cpu": limit - SPARE_BYTES,
        "disk": str(folder),
        "batch": max(asked["batches"]),
        "context": CONTEXT,
        "streaming": asked.get("streaming", "auto"),
    }
    quantization = asked.get("quantization", "none")
    config = HuggingFaceConfig(checkpoint=str(folder), memory=memory, quantization=quantization)
    with capped(limit - status("VmRSS")) as cap:
        forget_peak()
        plan = place(folder, config)
        assert plan is not None
        assert plan.arrangement is not None
        began = time.perf_counter()
        model = _loaded(folder, config, plan, asked.get("is_checked", False))
        load_s = time.perf_counter() - began
        steps = [_steps(model, batch, asked["num_steps"], folder) for batch in asked["batches"]]
    return {
        "cap": cap,
        "load_s": load_s,
        "peak_bytes": status("VmHWM"),
        "planned_bytes": plan.arrangement.host_bytes,
        "streamed_bytes": plan.arrangement.read_bytes,
        "steps": steps,
    }


def _loaded(folder: Path, config: HuggingFaceConfig, plan: Plan, is_checked: bool) -> Any:
    """As a replica loads it; without the passes that check the model, which by accelerate would
    take a quarter of an hour, unless they are asked for."""
    if is_checked:
        return load(config).model
    return build.build(check_folder(folder), config, plan, unreported)


def _steps(model: Any, batch: int, num_steps: int, folder: Path) -> dict[str, Any]:
    """A step's median seconds, with and without reading weights, the bytes that came from the disk
    in each, and the disk's bandwidth, before or after, whichever was better."""
    decoder = Decoder(model)
    before = disk.bandwidth(folder)
    process = psutil.Process()
    with torch.inference_mode():
        _wait_for_slots(model)
        read, passes = process.io_counters().read_bytes, num_steps + 2
        with busy_share(model) as busy:
            timed = _timed(decoder, batch, num_steps)
        _wait_for_slots(model)
        # What the disk gave this process: what the page cache gives is not among it.
        read_bytes = (process.io_counters().read_bytes - read) / passes
        found = {"batch": batch, "read_bytes": read_bytes, **timed, "compute_s": None, **busy}
        if hasattr(model, "streamer"):
            with borrowed_weights(model):
                found["compute_s"] = _timed(decoder, batch, num_steps)["step_s"]
    return found | {"disk_bandwidth": max(before, disk.bandwidth(folder))}


def _timed(decoder: Decoder, batch: int, num_steps: int) -> dict[str, float]:
    """Of so many steps and two passes before them: one for the cache, and one in which it grows."""
    width = CONTEXT - num_steps - 1
    cache = empty_cache(decoder, batch, width)
    process, seconds = psutil.Process(), []
    began, others = 0.0, 0.0
    for number in range(num_steps + 1):
        if number == 1:
            began, others = time.perf_counter(), _others_s(process)
        step_began = time.perf_counter()
        ids = torch.zeros((batch, 1), dtype=torch.long)
        mask = torch.ones((batch, width + number + 1), dtype=torch.long)
        _, cache = decoder.forward(ids, mask, cache)
        seconds.append(time.perf_counter() - step_began)
    return {
        "step_s": median(seconds[1:]),
        "others_share": (_others_s(process) - others) / (time.perf_counter() - began),
    }


def _wait_for_slots(model: Any) -> None:
    """Until the ring is as full as it can be, so that whole passes are counted."""
    if hasattr(model, "streamer"):
        wait([block for slot in model.streamer.ring._slots for block in slot.filling])


def _others_s(process: psutil.Process) -> float:
    """CPU seconds of all other processes of the machine."""
    return sum(cpu_s(other) for other in psutil.process_iter()) - cpu_s(process)


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
