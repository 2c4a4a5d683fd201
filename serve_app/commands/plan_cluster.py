"""`roundhouse plan-cluster`: which model of a serve_config lands where, before it is deployed."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve_app.placement.node import Node

EPILOG = """\
examples:
  roundhouse plan-cluster serve_config.yaml
  roundhouse plan-cluster serve_config.yaml --nodes "4x8xH100-80GB,2x4xL4-24GB/48CPU,3x16CPU"

Nodes are [COUNTx]GPUSxNAME[-MEMORY GB][/CPUS CPU], or [COUNTx]CPUS CPU for those without a GPU;
what is not said is taken for enough. Without --nodes: those of the running Ray cluster, with all
that they have, free or not; without a cluster, this machine. Weights are known from checkpoints
that can be read from here, and from the catalogue. Exit status: 0 every model can run, and all of
them at once at their least; 1 not so.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `plan-cluster`."""
    parser.epilog = EPILOG
    parser.add_argument("file", type=Path, help="the file that `serve deploy` gets")
    parser.add_argument("--nodes", metavar="NODES", help="such as 4x8xH100-80GB,3x16CPU")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints a plan; 0 if everything fits."""
    from serve_app.check import document, inventory
    from serve_app.placement.cluster_plan import as_text, cluster_plan
    from serve_app.placement.wanted import wanted

    try:
        parsed, _ = document.load(arguments.file.read_text(encoding="utf-8"))
        nodes, nodes_known = _nodes(arguments.nodes)
    except OSError as error:
        return _refuse(f"{arguments.file}: {error.strerror}")
    except UnicodeDecodeError:
        return _refuse(f"{arguments.file}: not UTF-8 text")
    except ValueError as error:
        return _refuse(f"--nodes: {error}")
    found = inventory.read(parsed.value) if parsed else None
    if found is None:
        return _refuse(f"{arguments.file}: not a serve_config; see `roundhouse check`")
    asked = list(wanted(found, nodes))
    left_out = len(found.applications) - len(asked)
    if left_out:
        note = "not planned: not ours, or refused by `roundhouse check`"
        print(f"roundhouse: {left_out} of {len(found.applications)} {note}", file=sys.stderr)
    plan = cluster_plan(asked, nodes, nodes_known)
    print(plan.model_dump_json(indent=2) if arguments.json else as_text(plan, str(arguments.file)))
    return 0 if plan.fits else 1


def _nodes(said: str | None) -> "tuple[tuple[Node, ...], str]":
    """The nodes, and how they are known. Raises: ValueError."""
    from serve_app.check.nodes import known_nodes
    from serve_app.placement.spec import parse

    if said is not None:
        return parse(said), "as --nodes says"
    known = known_nodes()
    if known is None:
        raise ValueError("the cluster that RAY_ADDRESS names does not answer; say its nodes")
    return known.nodes, known.source


def _refuse(message: str) -> int:
    print(f"roundhouse: {message}", file=sys.stderr)
    return 1
