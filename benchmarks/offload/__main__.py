"""Serves Bloom-3B's geometry within 3 GiB of RAM, and says how near the disk's bound it comes."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.offload import bloom
from benchmarks.table import Table
from deployments.placement.bandwidth import CPU_BANDWIDTHS, measured

BATCHES = (1, 4, 16)
HEADER = ("", "batch", "step s", "tokens/s", "read GB", "bound s", "of bound", "peak GiB")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offload", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where 6 GB may lie meanwhile; default: TMPDIR")
    parser.add_argument("--steps", type=int, default=3, help="timed at each batch size")
    parser.add_argument("--layers", type=int, default=bloom.NUM_LAYERS, help="fewer: a first try")
    parser.add_argument("--limit-gib", type=float, default=3, help="RAM; default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bloom-3b-") as folder:
        num_bytes = bloom.write(Path(folder), arguments.layers)
        os.sync()
        print(f"{num_bytes / 1e9:.2f} GB of weights, {arguments.limit_gib:g} GiB of RAM")
        _compare(Path(folder), arguments)
    return 0


def _compare(folder: Path, arguments: argparse.Namespace) -> None:
    disk = measured(CPU_BANDWIDTHS, folder / "outer.safetensors", on_cpu=True).disk
    limit_bytes = int(arguments.limit_gib * 2**30)
    asked = {"folder": str(folder), "limit_bytes": limit_bytes, "num_steps": arguments.steps}
    ours = _run(asked | {"streaming": "auto", "batches": BATCHES})
    theirs = _run(asked | {"streaming": "accelerate", "batches": [1], "num_steps": 1})
    assert all(step["is_cold"] for step in ours["steps"]), "the page cache was read"
    rows = [_row("streamed", step, ours, disk) for step in ours["steps"]]
    rows.append(_row("accelerate", theirs["steps"][0], theirs, disk))
    print(f"disk: {disk / 1e9:.2f} GB/s by direct reads, cold; cap: {ours['cap']}")
    print(Table(HEADER, rows).as_text())
    speedup = theirs["steps"][0]["step_s"] / ours["steps"][0]["step_s"]
    print(f"{speedup:.1f} times accelerate's hooks at batch 1")


def _row(name: str, step: dict[str, Any], run: dict[str, Any], disk: float) -> tuple[str, ...]:
    bound_s = step["read_bytes"] / disk
    return (
        name,
        str(step["batch"]),
        f"{step['step_s']:.2f}",
        f"{step['batch'] / step['step_s']:.2f}",
        f"{step['read_bytes'] / 1e9:.2f}" if bound_s else "-",
        f"{bound_s:.2f}" if bound_s else "-",
        f"{bound_s / step['step_s']:.2f}" if bound_s else "-",
        f"{run['peak_bytes'] / 2**30:.2f}",
    )


def _run(asked: dict[str, Any]) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(asked, file)
        file.flush()
        command = [sys.executable, "-m", "benchmarks.offload.stepping", file.name]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{asked['streaming']}: ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
