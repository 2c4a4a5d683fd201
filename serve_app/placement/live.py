"""The nodes of the running cluster that this process belongs to, and those that it could grow."""

from typing import Any

import ray
from ray._private.state import state

from serve_app.placement.node import Node


def cluster_nodes() -> tuple[Node, ...]:
    """Those that are there, and one of each kind that its autoscaler could add; none without a
    cluster. Blocks: Ray's control store is asked."""
    if not ray.is_initialized():
        return ()
    return (*alive_nodes(), *addable_nodes())


def alive_nodes() -> tuple[Node, ...]:
    """Those that are there."""
    rows: list[dict[str, Any]] = ray.nodes()
    return tuple(
        Node.of_ray(row["NodeID"], row["Resources"], row["Labels"]) for row in rows if row["Alive"]
    )


def addable_nodes() -> tuple[Node, ...]:
    """One of each kind that the autoscaler, if there is one, could add."""
    config = state.get_cluster_config()
    groups = config.node_group_configs if config else ()
    return tuple(
        Node.of_ray(group.name, dict(group.resources)) for group in groups if group.max_count
    )
