"""Which nodes there are, and the largest. Never starts Ray, waits for no cluster but briefly."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass

from ray._private.accelerators import get_accelerator_manager_for_resource
from ray._private.utils import read_ray_address

from serve_app.placement.node import Node as ClusterNode

TIMEOUT_S = 5
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True)
class Node:
    """The largest node, and how it is known."""

    num_gpus: float
    source: str
    memory_gb: float | None = None  # of one GPU, in 10^9 bytes; None: not known


@dataclass(frozen=True, slots=True)
class Nodes:
    """All of them, and how they are known."""

    nodes: tuple[ClusterNode, ...]
    source: str


def largest_node(gpus_per_node: float | None) -> Node | None:
    """What the operator says, else the cluster that Serve would use, else this machine.

    None where the environment names a cluster that does not answer: nothing is known of it.
    """
    if gpus_per_node is not None:
        return Node(gpus_per_node, "as --gpus-per-node says")
    found = known_nodes()
    if found is None:
        return None
    largest = max(found.nodes, key=lambda node: node.num_gpus)
    return Node(largest.num_gpus, found.source, largest.gpu_memory_gb)


def known_nodes() -> Nodes | None:
    """Those of the cluster that Serve would use, else this machine.

    None where the environment names a cluster that does not answer: nothing is known of it.
    """
    named = os.environ.get("RAY_ADDRESS")
    if named == "local":
        return _this_machine()
    address = named if named and named != "auto" else read_ray_address()
    nodes = _ask(address) if address else None
    if nodes:
        return Nodes(nodes, f"in the running cluster {address}")
    # A leftover address file of a cluster that is gone means nothing; a named cluster does.
    return None if named else _this_machine()


def _ask(address: str) -> tuple[ClusterNode, ...]:
    """In a process of its own: Ray's client ends the process that cannot reach its cluster."""
    if not listens(address):  # a cluster that is gone should not cost its timeout
        return ()
    command = [sys.executable, "-m", "serve_app.check.cluster", address]
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        return tuple(ClusterNode.of_ray(*told) for told in json.loads(done.stdout))
    except (subprocess.SubprocessError, ValueError):
        return ()


def listens(address: str) -> bool:
    """Whether somebody is at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except (OSError, OverflowError, ValueError):
        return False
    return True


def _this_machine() -> Nodes:
    manager = get_accelerator_manager_for_resource("GPU")
    visible = manager.get_current_process_visible_accelerator_ids()
    count = manager.get_current_node_num_accelerators()
    num_gpus = count if visible is None else min(count, len(visible))
    resources = {"CPU": float(os.cpu_count() or 1), "GPU": float(num_gpus)}
    memory_gb = _memory_gb() if num_gpus else None
    here = ClusterNode("this machine", resources, known_gpu_memory_gb=memory_gb)
    return Nodes((here,), "on this machine")


def _memory_gb() -> float | None:
    """Of the smallest NVIDIA GPU here; None without the driver's tool."""
    try:
        done = subprocess.run(
            NVIDIA_SMI, check=True, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        return min(int(size) * 2**20 / 1e9 for size in done.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
