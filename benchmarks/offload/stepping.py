"""A process that loads a checkpoint under a cap on its memory and takes decode steps.

Run as a module with a JSON of settings; prints a JSON of what it measured.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.memory_cap import capped, forget_peak, status
from deployments.config import HuggingFaceConfig
from deployments.huggingface import build, engine  # noqa: F401 - part of the base, not of the model
from deployments.huggingface.decoder import Decoder
from deployments.huggingface.loader import load
from deployments.huggingface.rehearsal import step

CONTEXT = 64
SPARE_BYTES = 160 * 2**20  # of the cap, that the plan may not use


def main(asked: dict[str, Any]) -> dict[str, Any]:
    limit = asked["limit_bytes"]
    memory = {
        "cpu": limit - SPARE_BYTES,
        "disk": asked["folder"],
        "batch": max(asked["batches"]),
        "context": CONTEXT,
        "streaming": asked["streaming"],
    }
    config = HuggingFaceConfig(checkpoint=asked["folder"], memory=memory)
    with capped(limit - status("VmRSS")) as cap:
        forget_peak()
        began = time.perf_counter()
        model = load(config).model
        load_s = time.perf_counter() - began
        steps = [_timed(model, batch, asked["num_steps"]) for batch in asked["batches"]]
    return {"cap": cap, "load_s": load_s, "peak_bytes": status("VmHWM"), "steps": steps}


def _timed(model: Any, batch: int, num_steps: int) -> dict[str, Any]:
    """Seconds and bytes of a step; the first step is not counted."""
    decoder, streamer = Decoder(model), getattr(model, "streamer", None)
    with torch.inference_mode():
        step(decoder, batch, 1, CONTEXT)
        before = streamer.reader.num_read_bytes if streamer else 0
        began = time.perf_counter()
        for _ in range(num_steps):
            step(decoder, batch, 1, CONTEXT)
        seconds = (time.perf_counter() - began) / num_steps
    read = (streamer.reader.num_read_bytes - before) / num_steps if streamer else 0
    is_cold = streamer.reader.is_direct if streamer else False
    return {"batch": batch, "step_s": seconds, "read_bytes": read, "is_cold": is_cold}


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
