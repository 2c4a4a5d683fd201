"""How many GPUs the largest node has. Never starts Ray, and waits for no cluster but briefly."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass

from ray._private.accelerators import get_accelerator_manager_for_resource
from ray._private.utils import read_ray_address

TIMEOUT_S = 5
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
# By Ray's names of accelerators, where one stands for one size; an A100 may have 40 GB or 80.
MEMORY_GB = {
    "T4": 16,
    "L4": 24,
    "A10G": 24,
    "L40S": 48,
    "A100-40G": 40,
    "A100-80G": 80,
    "H100": 80,
    "H200": 141,
    "B200": 180,
}


@dataclass(frozen=True, slots=True)
class Node:
    """The largest node, and how it is known."""

    num_gpus: float
    source: str
    memory_gb: float | None = None  # of one GPU, in 10^9 bytes; None: not known


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
    answer = _ask(address) if address else None
    if answer is not None:
        num_gpus, accelerator = answer
        memory_gb = MEMORY_GB.get(accelerator)
        return Node(num_gpus, f"in the running cluster {address}", memory_gb)
    # A leftover address file of a cluster that is gone means nothing; a named cluster does.
    return None if named else _this_machine()


def _ask(address: str) -> tuple[float, str] | None:
    """In a process of its own: Ray's client ends the process that cannot reach its cluster."""
    if not listens(address):  # a cluster that is gone should not cost its timeout
        return None
    command = [sys.executable, "-m", "serve_app.check.cluster", address]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        num_gpus, _, accelerator = done.stdout.strip().partition(" ")
        return (float(num_gpus), accelerator) if done.returncode == 0 else None
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
    num_gpus = count if visible is None else min(count, len(visible))
    return Node(num_gpus, "on this machine", _memory_gb() if num_gpus else None)


def _memory_gb() -> float | None:
    """Of the smallest NVIDIA GPU here; None without the driver's tool."""
    try:
        done = subprocess.run(
            NVIDIA_SMI, check=True, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        return min(int(size) * 2**20 / 1e9 for size in done.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
