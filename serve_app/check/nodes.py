"""How many GPUs the largest node has. Never starts Ray, and waits for no cluster but briefly."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass

from ray._private.accelerators import get_accelerator_manager_for_resource
from ray._private.utils import read_ray_address

TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Node:
    """The largest node, and how it is known."""

    num_gpus: float
    source: str


def largest_node(gpus_per_node: float | None) -> Node | None:
    """What the operator says, else the cluster that Serve would use, else this machine.

    None where the environment names a cluster that does not answer: nothing is known of it.
    """
    if gpus_per_node is not None:
        return Node(gpus_per_node, "as --gpus-per-node says")
    named = os.environ.get("RAY_ADDRESS")
    if named == "local":
        return _this_machine()
    address = named if named and named != "auto" else read_ray_address()
    num_gpus = _ask(address) if address else None
    if num_gpus is not None:
        return Node(num_gpus, f"in the running cluster {address}")
    # A leftover address file of a cluster that is gone means nothing; a named cluster does.
    return None if named else _this_machine()


def _ask(address: str) -> float | None:
    """In a process of its own: Ray's client ends the process that cannot reach its cluster."""
    if not listens(address):  # a cluster that is gone should not cost its timeout
        return None
    command = [sys.executable, "-m", "serve_app.check.cluster", address]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        return float(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        return None


def listens(address: str) -> bool:
    """Whether somebody is at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except (OSError, OverflowError, ValueError):
        return False
    return True


def _this_machine() -> Node:
    manager = get_accelerator_manager_for_resource("GPU")
    visible = manager.get_current_process_visible_accelerator_ids()
    count = manager.get_current_node_num_accelerators()
    return Node(count if visible is None else min(count, len(visible)), "on this machine")
