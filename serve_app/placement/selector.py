"""Node labels: which nodes a selector of Ray's takes, and the one that keeps off GPU nodes.

A label selector is a hard condition. Ray's `fallback_strategy` would be a soft one, but it gives
way as soon as the better nodes are full, and then a replica that needs no GPU takes the CPUs beside
one; so whether there is another node at all is asked once, when the application is built.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from ray.util import accelerators

from serve_app.placement.node import ACCELERATOR_LABEL, MEMORY_GB, NODE_ID_LABEL, Node

CONDITION = re.compile(r"(!?)(?:in\((.*)\)|(.*))")


def matches(node: Node, selector: Mapping[str, str]) -> bool:
    """Whether the node has the labels; a negated condition also takes nodes without the label."""
    return all(_holds(node.labels.get(label), wanted) for label, wanted in selector.items())


def _holds(value: str | None, condition: str) -> bool:
    match = CONDITION.fullmatch(condition)
    if match is None:
        return False
    negated, several, one = match.groups()
    wanted = [one] if several is None else [each.strip() for each in several.split(",")]
    return (value in wanted) != bool(negated)


def off_gpu_nodes(nodes: Sequence[Node], num_cpus: float) -> dict[str, str]:
    """Labels by which a replica of so many CPUs keeps off GPU nodes, those to come included;
    nothing where every node that has the CPUs has GPUs too."""
    if not any(node.num_cpus >= num_cpus and node.num_cpus and not node.num_gpus for node in nodes):
        return {}
    selector = {ACCELERATOR_LABEL: _not_in(_accelerators())}
    unlabelled = [
        node.labels[NODE_ID_LABEL]
        for node in nodes
        if node.num_gpus and matches(node, selector) and NODE_ID_LABEL in node.labels
    ]
    return selector | ({NODE_ID_LABEL: _not_in(unlabelled)} if unlabelled else {})


def _accelerators() -> set[str]:
    """Ray's names of accelerators, Apple's apart, which are no node's pride; it lists not all."""
    names = vars(accelerators).items()
    return {name for key, name in names if key.isupper() and not key.startswith("APPLE")} | {
        *MEMORY_GB
    }


def _not_in(values: Iterable[str]) -> str:
    return f"!in({','.join(sorted(set(values)))})"


def as_ray_reads(selector: Mapping[str, str]) -> dict[str, str]:
    """Without spaces: Ray 2.60 takes them, and then does not find the values behind them where
    replicas are spread, which is how Serve places them."""
    return {label: condition.replace(" ", "") for label, condition in selector.items()}
