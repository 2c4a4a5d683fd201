"""`roundhouse plan`: what a model needs and where it would go, before anything is loaded."""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deployments import catalog
from deployments.config import MemoryConfig
from deployments.errors import StartError
from deployments.placement import amount
from deployments.placement.adapters import adapter_bytes
from deployments.placement.bandwidth import CPU_BANDWIDTHS, Bandwidths, measured
from deployments.placement.budget import Budget
from deployments.placement.demand import Model
from deployments.placement.machine import available_ram_bytes, free_disk_bytes, free_gpu_bytes
from deployments.placement.planner import QUANTIZATIONS, Question, make_plan
from deployments.placement.report import report
from deployments.placement.report_text import as_text
from deployments.placement.surplus import check_surplus
from deployments.placement.workload import Workload
from serve_app.check.problem import nearest

EPILOG = """\
examples:
  roundhouse plan /models/bloom-3b --gpu 15GiB --cpu 24GiB --disk /scratch
  roundhouse plan demo --batch 32 --context 1024 --json

Reads config.json and the headers of the weights, never the weights (but see --measure). What is
left out of the budget is what this machine has; without --disk nothing is put on or streamed from
disk. Exit status: 0 it fits, 1 it does not, or there is nothing to plan.
"""
GB = 1e9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `plan`."""
    add = parser.add_argument
    parser.epilog = EPILOG
    add("model", help="a checkpoint's folder or hub id, or a `model_type` of the catalogue")
    add("--gpu", type=_amount, metavar="AMOUNT", help="GPU memory to use, such as 15GiB; 0: none")
    add("--cpu", type=_amount, metavar="AMOUNT", help="RAM to use, such as 24GiB")
    add("--disk", type=Path, metavar="PATH", help="a folder for what fits in neither")
    add("--adapter", type=Path, action="append", default=[], metavar="PATH", help="to be counted")
    add("--batch", type=_count, default=MemoryConfig().batch, help="sequences at a time")
    told = "tokens of a sequence, prompt and answer; at most the model's"
    add("--context", type=_count, metavar="TOKENS", help=told)
    choices = ["auto", *QUANTIZATIONS]
    add("--quantization", choices=choices, default="auto", help="auto: any, where it is needed")
    add("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    for road in ("memory", "link", "disk"):
        add(f"--{road}-gbps", type=_rate, metavar="GB/S", help=f"bandwidth of the {road}")
    add("--measure", action="store_true", help="measure RAM and disk, reading some of the weights")
    add("--json", action="store_true", help="print the plan as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints a plan; 0 if the model can run."""
    try:
        model = _model(arguments.model, arguments.dtype)
        check_surplus(arguments.model, model.weights.beyond)
        adapters = sum(map(adapter_bytes, arguments.adapter))
        model = replace(model, name=arguments.model, adapter_bytes=adapters)
    except (StartError, ValueError) as error:
        print(f"roundhouse: {error}", file=sys.stderr)
        return 1
    question = _question(arguments, model)
    plan = make_plan(question)
    told = report(plan, _speeds(arguments, question))
    print(told.model_dump_json(indent=2) if arguments.json else as_text(told))
    return 0 if plan.chosen else 1


def _question(arguments: argparse.Namespace, model: Model) -> Question:
    gpu = free_gpu_bytes() if arguments.gpu is None else arguments.gpu
    cpu = available_ram_bytes() if arguments.cpu is None else arguments.cpu
    disk = None if arguments.disk is None else free_disk_bytes(arguments.disk)
    context = arguments.context or MemoryConfig().context
    context = min(context, model.geometry.max_model_len or context)  # as when it is loaded
    asked = arguments.quantization
    quantizations = QUANTIZATIONS if asked == "auto" else (asked,)
    if model.geometry.is_quantized:  # as it is stored, and not once more
        quantizations = ("none",)
    return Question(
        model, Workload(arguments.batch, context), Budget(gpu, cpu, disk), quantizations
    )


def _speeds(arguments: argparse.Namespace, question: Question) -> Bandwidths:
    on_cpu = not question.budget.has_gpu
    speeds = CPU_BANDWIDTHS if on_cpu else Bandwidths()
    if arguments.measure:
        speeds = measured(speeds, question.model.weights.largest_file, on_cpu)
    given = {
        road: rate * GB
        for road in ("memory", "link", "disk")
        if (rate := getattr(arguments, f"{road}_gbps")) is not None
    }
    return replace(speeds, **given, source="given") if given else speeds


def _model(name: str, dtype: str) -> Model:
    """Raises: StartError, ValueError."""
    from deployments.huggingface.checkpoint.whole import is_hub_id
    from deployments.placement.source import from_folder, from_hub, model_of

    settings = _settings(name)
    checkpoint = catalog.checkpoint_path(str(settings["checkpoint"]))
    dtype = str(settings.get("dtype", "auto")) if dtype == "auto" else dtype
    if not is_hub_id(checkpoint):
        return from_folder(Path(checkpoint).expanduser(), dtype)
    if (cached := _cached(checkpoint)) is not None:
        return from_folder(cached, dtype)
    config, tensors = from_hub(checkpoint)
    return model_of(checkpoint, config, tensors, dtype)


def _settings(name: str) -> Mapping[str, Any]:
    entries = catalog.entries()
    if name not in entries and (Path(name).expanduser().exists() or "/" in name):
        return {"checkpoint": name}
    if name not in entries:
        raise ValueError(f"{name} is no folder, and not in the catalogue{nearest(name, entries)}")
    settings = catalog.with_defaults({"model_type": name})
    if "checkpoint" not in settings:
        raise ValueError(f"{name} is served by backend `{settings['backend']}`: no weights here")
    return settings


def _cached(repo: str) -> Path | None:
    """The folder of a checkpoint in the hub's cache, if its weights are there too."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json")
    folder = Path(found).parent if isinstance(found, str) else None
    return folder if folder is not None and any(folder.glob("*.safetensors")) else None


def _typed(parse: Callable[[str], Any], what: str) -> Callable[[str], Any]:
    def checked(text: str) -> Any:
        try:
            return parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"should be {what}") from None

    return checked


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


def _whole(text: str) -> int:
    number = int(text)
    if not 0 < number < 2**31:
        raise ValueError
    return number


_amount = _typed(amount.parse, "an amount of memory, such as 15GiB or 512MiB")
_rate = _typed(_positive, "a number of gigabytes per second, such as 25")
_count = _typed(_whole, "a whole number from 1")
