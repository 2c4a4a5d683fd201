"""`roundhouse models`: what `model_type` may be, and what each would ask of this cluster.

It says what is in the catalogue, and downloads nothing. Where the weights of a model would go,
layer by layer, is for `roundhouse plan` to say.
"""

import argparse
import json
import sys
from typing import Any

import yaml

from deployments import catalog
from deployments.catalog import Entry
from serve_app.check.problem import nearest

EPILOG = """\
examples:
  roundhouse models
  roundhouse models falcon-40b-instruct --gpus-per-node 8 --gpu-memory-gb 24
  roundhouse models --json

The names are what `model_type` may be in serve_config.yaml; `args` there override any setting. The
columns of memory say how many GPUs of so much a replica takes. What is not said of the GPUs is
asked of the running Ray cluster, else of this machine.
"""
HEADINGS = ("MODEL", "BACKEND", "PARAMETERS", "CONTEXT", "80 GB", "24 GB", "LICENCE", "FROM")
SIZES_GB = (80, 24)
NUMBERS = ("PARAMETERS", "CONTEXT", "80 GB", "24 GB")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `models`."""
    parser.epilog = EPILOG
    parser.add_argument("name", nargs="?", help="show this entry in full, and what it would ask")
    parser.add_argument("--gpus-per-node", type=number, metavar="N", help="of the largest node")
    parser.add_argument("--gpu-memory-gb", type=number, metavar="GB", help="of one GPU")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints the catalogue, or one entry of it; 1 for a name that is not there."""
    entries, name = catalog.entries(), arguments.name
    if name is None:
        listed = [shown(name, entry) for name, entry in entries.items()]
        print(json.dumps(listed, indent=2) if arguments.json else table())
        return 0
    if name not in entries:
        near = nearest(name, entries)
        print(f"roundhouse: no `{name}` in the catalogue{near}", file=sys.stderr)
        return 1
    from serve_app.commands.model_plan import Nodes, plan

    nodes = Nodes.of(arguments.gpus_per_node, arguments.gpu_memory_gb)
    one = {**shown(name, entries[name]), "plan": plan(name, nodes)}
    dumped = yaml.safe_dump(
        one, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )
    print(json.dumps(one, indent=2) if arguments.json else dumped.rstrip())
    return 0


def number(text: str) -> float:
    """What an option of the command line says of GPUs, which may be a part of one, or none.

    Raises: argparse.ArgumentTypeError.
    """
    try:
        amount = float(text)
    except ValueError:
        amount = -1
    if not 0 <= amount < float("inf"):
        raise argparse.ArgumentTypeError("should be a number, such as 8")
    return amount


def shown(name: str, entry: Entry) -> dict[str, Any]:
    """An entry as programs read it: what it leaves out is left out."""
    return {"model_type": name, **entry.model_dump(mode="json", exclude_defaults=True)}


def table() -> str:
    """The catalogue as people read it, a line for each entry."""
    rows = [HEADINGS, *(_row(name, entry) for name, entry in catalog.entries().items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        "  ".join(
            cell.rjust(width) if heading in NUMBERS else cell.ljust(width)
            for cell, width, heading in zip(row, widths, HEADINGS, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join(aligned)


def _row(name: str, entry: Entry) -> tuple[str, ...]:
    parameters = f"{entry.parameters / 1e9:.1f}B" if entry.parameters else ""
    gpus = [str(entry.num_gpus(size) or "-") if entry.gpus else "" for size in SIZES_GB]
    context = str(entry.context or "")
    licence = entry.license or ""
    return (name, entry.backend, parameters, context, *gpus, licence, _source(entry))


def _source(entry: Entry) -> str:
    if entry.repo is None:
        upstreams = [model["upstream_model"] for model in entry.settings.get("models", {}).values()]
        return ", ".join(upstreams) or entry.description
    marks = [("gated", entry.gated), ("needs your `checkpoint`", entry.needs_checkpoint)]
    marked = "; ".join(mark for mark, holds in marks if holds)
    return f"{entry.repo} ({marked})" if marked else entry.repo
