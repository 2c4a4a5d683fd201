"""A process that loads a checkpoint under a cap on its memory and takes decode steps.

Run as a module with a JSON of settings; prints a JSON of what it measured.
"""

import json
import sys
import time
from concurrent.futures import wait
from pathlib import Path
from statistics import fmean, median
from typing import Any

import psutil
import torch

from benchmarks.cpu_use import cpu_s
from benchmarks.memory_cap import capped, forget_peak, status
from benchmarks.offload import disk
from benchmarks.offload.disk_use import busy_share
from deployments.config import HuggingFaceConfig
from deployments.huggingface.checkpoint.whole import check_folder
from deployments.huggingface.engine import engine  # noqa: F401 - part of the base, not of the model
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.loading import build
from deployments.huggingface.loading.loader import load
from deployments.huggingface.loading.placing import place
from deployments.huggingface.loading.rehearsal import empty_cache
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
        steps = [_steps(model, batch, asked) for batch in asked["batches"]]
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


def _steps(model: Any, batch: int, asked: dict[str, Any]) -> dict[str, Any]:
    """The medians of some rounds of steps, with the disk measured before, between and after them:
    a virtual machine's is not the same from one minute to the next. `compute_s` is a step's without
    reading weights."""
    probe = disk.Probe(Path(asked["folder"]), _slots(model))
    with torch.inference_mode():
        _take(probe, model)
        rounds = []
        for _ in range(asked["num_rounds"]):
            rounds.append(_round(model, batch, asked["num_steps"]))
            _take(probe, model)
        compute_s = None
        if _streams(model):
            with borrowed_weights(model):
                compute_s = median(_timed(Decoder(model), batch, asked["num_steps"])["seconds"])
    step_s = median(second for one in rounds for second in one.pop("seconds"))
    told = [name for name, value in rounds[0].items() if value is not None]
    means = {name: fmean(one[name] for one in rounds) for name in told}
    found = {"batch": batch, "step_s": step_s, "compute_s": compute_s}
    return found | {"busy_share": None} | means | probe.bandwidths()


def _round(model: Any, batch: int, num_steps: int) -> dict[str, Any]:
    """The seconds of each step, the bytes that came from the disk in each, and how busy it was."""
    decoder, process, passes = Decoder(model), psutil.Process(), num_steps + 2
    read = process.io_counters().read_bytes
    with busy_share(model) as busy:
        timed = _timed(decoder, batch, num_steps)
    _wait_for_slots(model)
    # What the disk gave this process: what the page cache gives is not among it.
    read_bytes = (process.io_counters().read_bytes - read) / passes
    return {"read_bytes": read_bytes, **timed, **busy}


def _timed(decoder: Decoder, batch: int, num_steps: int) -> dict[str, Any]:
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
        "seconds": seconds[1:],
        "others_share": (_others_s(process) - others) / (time.perf_counter() - began),
    }


def _slots(model: Any) -> list[memoryview]:
    return [slot.memory for slot in model.streamer.ring._slots] if _streams(model) else []


def _take(probe: disk.Probe, model: Any) -> None:
    """Measures the disk while nothing else reads; afterwards the slots have their layers again, as
    many as they can, so that whole passes are counted."""
    _wait_for_slots(model)
    probe.take()
    if _streams(model):
        ring = model.streamer.ring
        for slot in ring._slots:
            slot.layer = None
        for layer in range(ring.num_slots):
            ring.acquire(layer)


def _wait_for_slots(model: Any) -> None:
    if _streams(model):
        wait([block for slot in model.streamer.ring._slots for block in slot.filling])


def _streams(model: Any) -> bool:
    return hasattr(model, "streamer")


def _others_s(process: psutil.Process) -> float:
    """CPU seconds of all other processes of the machine."""
    return sum(cpu_s(other) for other in psutil.process_iter()) - cpu_s(process)


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
