"""Nodes as operators describe them on the command line: `4x8xH100-80GB,2x4xL4-24GB,3x16CPU`."""

import math
import re
from collections.abc import Iterator

from serve_app.placement.node import ACCELERATOR, ACCELERATOR_LABEL, MEMORY_GB, Node

KIND = re.compile(
    r"(?:(?P<count>\d{1,5})x)?"
    r"(?:(?P<gpus>\d{1,4})x(?P<name>[A-Za-z][\w]*(?:-[A-Za-z]\w*)*)(?:-(?P<memory>\d+(?:\.\d+)?)GB?)?"
    r"(?:/(?P<with_cpus>\d{1,5})CPU)?|(?P<cpus>\d{1,5})CPU)",
    re.IGNORECASE,
)
FORM = "should be nodes such as 4x8xH100-80GB,2x4xL4-24GB/48CPU,3x16CPU"


def parse(text: str) -> tuple[Node, ...]:
    """The nodes, named for what they are. What is not said of one is taken for enough.

    Raises: ValueError.
    """
    nodes = [node for kind in text.split(",") for node in _nodes(kind.strip())]
    return tuple(
        Node(f"{node.name}-{index}", node.resources, node.labels, node.known_gpu_memory_gb)
        for index, node in enumerate(nodes, 1)
    )


def _nodes(kind: str) -> Iterator[Node]:
    match = KIND.fullmatch(kind)
    if match is None:
        raise ValueError(FORM)
    count = int(match["count"] or 1)
    node = _cpu_node(float(match["cpus"])) if match["cpus"] else _gpu_node(match)
    yield from [node] * count


def _cpu_node(num_cpus: float) -> Node:
    return Node("cpu", {"CPU": num_cpus, "memory": math.inf})


def _gpu_node(match: re.Match[str]) -> Node:
    name, num_gpus = match["name"], float(match["gpus"])
    memory_gb = float(match["memory"]) if match["memory"] else MEMORY_GB.get(name)
    names = {name} | ({f"{name}-{memory_gb:g}G"} & MEMORY_GB.keys() if memory_gb else set())
    resources = {
        "CPU": float(match["with_cpus"] or math.inf),
        "memory": math.inf,
        "GPU": num_gpus,
        **{ACCELERATOR + each: 1.0 for each in sorted(names)},
    }
    return Node(name.lower(), resources, {ACCELERATOR_LABEL: name}, memory_gb)
