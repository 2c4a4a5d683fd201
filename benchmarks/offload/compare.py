"""Serves Bloom-3B's geometry within 3 GiB of RAM, by the streamer and by accelerate's hooks."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import Machine, this_machine
from benchmarks.offload import bloom, disk
from benchmarks.offload.planning import plan_s
from benchmarks.stack import ROOT

BATCHES = (1, 4, 8, 16)
QUANTIZED_BATCHES = (1, 8)
NUM_ROUNDS = 3  # of what the disk bounds
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Found:
    """What the processes measured, each as it told it. `alone`, like `accelerate`, is planned for
    one sequence, the others for their largest batches."""

    machine: Machine
    weight_bytes: int
    limit_bytes: int
    streamed: dict[str, Any]
    alone: dict[str, Any]
    quantized: dict[str, dict[str, Any]]
    accelerate: dict[str, Any]
    plan_s: float
    took_s: float


@dataclass(frozen=True, slots=True)
class Asked:
    """`folder` is where the weights may lie meanwhile; fewer layers, or tokens, are a first try."""

    folder: Path | None
    num_layers: int
    vocab_size: int
    limit_gib: float
    num_steps: int


def measure(asked: Asked) -> Found:
    """Raises: RuntimeError."""
    machine, began = this_machine(), time.monotonic()
    limit_bytes = int(asked.limit_gib * GIB)
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix="bloom-3b-") as folder:
        weight_bytes = bloom.write(Path(folder), asked.num_layers, asked.vocab_size)
        same = {"folder": folder, "limit_bytes": limit_bytes, "num_steps": asked.num_steps}
        often = same | {"num_rounds": NUM_ROUNDS}
        ours = _run(often | {"batches": BATCHES, "is_checked": True})
        alone = _run(often | {"batches": [1]})
        theirs = {"streaming": "accelerate", "batches": [1], "num_rounds": 2, "num_steps": 1}
        theirs = _run(same | theirs)
        packed = {"batches": QUANTIZED_BATCHES, "num_rounds": 1, "num_steps": 2 * asked.num_steps}
        packed = same | packed
        quantized = {kind: _run(packed | {"quantization": kind}) for kind in ("int8", "nf4")}
    planned_s, took_s = plan_s(), time.monotonic() - began
    return Found(
        machine, weight_bytes, limit_bytes, ours, alone, quantized, theirs, planned_s, took_s
    )


def _run(asked: dict[str, Any]) -> dict[str, Any]:
    disk.forget(Path(asked["folder"]))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(asked, file)
        file.flush()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.offload.stepping", file.name],
            check=False,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
    if done.returncode:
        raise RuntimeError(f"{asked}: its process ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
