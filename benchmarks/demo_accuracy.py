"""What quantisation costs: the demo model's answers to held-out questions, in each precision."""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.machine import Machine, this_machine
from benchmarks.report import Report
from benchmarks.table import Table

SEED = 1  # as demo.evaluate's
PRECISIONS = {
    "float32": {"dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"dtype": "bfloat16", "quantization": "int8"},
    "nf4": {"dtype": "bfloat16", "quantization": "nf4"},
}


@dataclass(frozen=True, slots=True)
class Found:
    """The share of exactly right answers by precision and task, and the weights' bytes."""

    machine: Machine
    num_each: int
    shares: dict[str, dict[str, float]]
    weight_bytes: dict[str, int]
    took_s: float


def measure(num_each: int) -> Found:
    """Asks so many questions of every task, in every precision."""
    from demo.checkpoint import MODEL_DIR
    from demo.evaluate import held_out, score

    machine, began = this_machine(), time.monotonic()
    talks, shares, weight_bytes = held_out(num_each, SEED), {}, {}
    for name, settings in PRECISIONS.items():
        loaded = _loaded(MODEL_DIR, settings)
        tokenizer = loaded.text_model.vocabulary.tokenizer
        shares[name] = score(loaded.model, tokenizer, talks)
        weight_bytes[name] = int(loaded.model.get_memory_footprint())
    return Found(machine, num_each, shares, weight_bytes, time.monotonic() - began)


def _loaded(folder: Path, settings: dict[str, str]) -> Any:
    """As the huggingface backend loads it."""
    from deployments.config import HuggingFaceConfig
    from deployments.huggingface.loading.loader import load

    return load(HuggingFaceConfig.model_validate({"checkpoint": str(folder), **settings}))


def report_of(found: Found) -> Report:
    tasks = [*next(iter(found.shares.values()))]
    rows = [
        (task, *(f"{100 * shares[task]:.1f} %" for shares in found.shares.values()))
        for task in tasks
    ]
    means = (f"{100 * fmean(shares.values()):.1f} %" for shares in found.shares.values())
    sizes = (f"{num_bytes / 1e6:.1f}" for num_bytes in found.weight_bytes.values())
    rows = [("all", *means), *rows, ("weights, MB", *sizes)]
    notes = [
        f"{found.machine.described()}; {found.took_s:.0f} s in all.",
        f"Exactly right greedy answers of {found.num_each} held-out conversations of each task, as "
        "`python -m demo.evaluate` asks them; loaded as the huggingface backend loads them. int8 "
        "and nf4 are bitsandbytes', computed in bfloat16; embeddings and head stay in bfloat16.",
    ]
    return Report("demo-accuracy", notes, [Table(("task", *found.shares), rows)])
