"""A process that loads a checkpoint into RAM and tells what that took at the most.

Run as a module with a checkpoint, a type and a quantisation; prints a JSON of bytes.
"""

import json
import sys
from pathlib import Path

import torch

from benchmarks.memory_cap import forget_peak, status
from deployments import catalog
from deployments.config import HuggingFaceConfig
from deployments.huggingface.loading.loader import load
from deployments.placement.demand import demand
from deployments.placement.source import from_folder
from deployments.placement.workload import Workload

WORK = {"batch": 2, "context": 32}


def main(checkpoint: str, dtype: str, quantization: str) -> dict[str, int]:
    torch.set_num_threads(1)
    same = {"memory": WORK, "quantization": quantization}
    # What libraries take on their first use is no part of the model.
    load(HuggingFaceConfig(checkpoint=catalog.checkpoint_path("package:demo/model"), **same))
    asked = from_folder(Path(checkpoint), dtype)
    before = status("VmRSS")
    forget_peak()
    load(HuggingFaceConfig(checkpoint=checkpoint, dtype=dtype, **same))
    return {
        "took": status("VmHWM") - before,
        "planned": demand(asked, quantization, Workload(**WORK)).resident_on_cpu,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
