"""Several real Ray nodes on this machine, in a folder and an environment of their own."""

import gc
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.serve.context import _set_global_client

from benchmarks.stack import free_port


@contextmanager
def ray_nodes(
    environment: Mapping[str, str], head: dict[str, Any], *workers: dict[str, Any]
) -> Iterator[tuple[Cluster, Path]]:
    """The nodes, and the folder that Ray has for itself, so that no other cluster on the machine is
    met. The head's dashboard takes a port even if it is off; Ray's usual one may be another's."""
    kept = {name: os.environ.get(name) for name in (*environment, "RAY_TMPDIR")}
    with tempfile.TemporaryDirectory(prefix="rh", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ.update(environment, RAY_TMPDIR=folder)  # sockets need a short path
        cluster = Cluster()
        try:
            for node in (head | {"dashboard_port": free_port()}, *workers):
                add_node(cluster, node)
            yield cluster, Path(folder)
        finally:
            _set_global_client(None)  # Serve goes with its nodes; by itself it would drain first
            ray.shutdown()
            cluster.shutdown()
            for name, value in kept.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def add_node(cluster: Cluster, node: dict[str, Any]) -> str:
    """One more node; its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # sockets by which Ray finds free ports
        added = cluster.add_node(**node)
        gc.collect()
    return str(added._node_id)
