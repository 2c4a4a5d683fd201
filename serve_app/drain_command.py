"""`roundhouse drain`: empties a node of replicas before it ends, so that nothing is cut off.

Ray is told that the node goes; Serve starts its replicas elsewhere, lets those here finish, and
has the node's `/-/healthz` fail. This waits for it. It ends no process, and no node.
"""

import argparse
import os
import sys
import time
from typing import Any

import psutil

POLL_S = 1.0
REPLICA = "ServeReplica:"  # how Serve's replicas begin as actors
EPILOG = """\
example, as `preStop` of a pod (cluster/kuberay/rayservice.yaml):
  roundhouse drain --limit-s 1300

The node stays in the cluster and takes no more work: end it afterwards. Exit status: 0 no replica
is left on it, and nobody is connected to its port; 1 not so after the limit, or Ray refused.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `drain`."""
    parser.epilog = EPILOG
    parser.add_argument("--limit-s", type=int, default=300, help="%(default)s if left out")
    parser.add_argument("--node-id", help="Ray's id of a node; left out: that on this machine")
    parser.add_argument("--port", type=int, default=8000, help="of the proxy; %(default)s")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Asks for the drain and waits; 0 if the node is empty."""
    deadline = time.monotonic() + arguments.limit_s
    address = _address()
    if address is None:
        return _refuse("no Ray cluster is known here; RAY_ADDRESS=HOST:PORT names one")
    cluster = Cluster(address)
    node_ids = [arguments.node_id] if arguments.node_id else cluster.nodes_here()
    if len(node_ids) != 1:
        return _refuse(f"{len(node_ids)} Ray nodes have this machine's address; say --node-id")
    refusal = cluster.drain(node_ids[0], arguments.limit_s)
    if refusal is not None:
        return _refuse(f"Ray does not drain node {node_ids[0]}: {refusal}")
    left = _left(cluster, node_ids[0], arguments.port)
    while left and time.monotonic() < deadline:
        time.sleep(POLL_S)
        left = _left(cluster, node_ids[0], arguments.port)
    if left:
        return _refuse(f"after {arguments.limit_s} s there are still {', '.join(left)}")
    print("roundhouse: the node is empty", flush=True)
    return 0


class Cluster:
    """The running cluster, asked without joining it: a driver would start processes of its own."""

    def __init__(self, address: str) -> None:
        from ray._private.state import GlobalState
        from ray._raylet import GcsClient, GcsClientOptions  # type: ignore[attr-defined]

        self._gcs = GcsClient(address=address)
        self._state: Any = GlobalState()
        self._state._initialize_global_state(
            GcsClientOptions.create(
                address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
            )
        )

    def nodes_here(self) -> list[str]:
        """The ids of the nodes with this machine's address."""
        import ray

        here = ray.util.get_node_ip_address()
        nodes = self._state.node_table()
        return [n["NodeID"] for n in nodes if n["Alive"] and n["NodeManagerAddress"] == here]

    def drain(self, node_id: str, limit_s: int) -> str | None:
        """Asks Ray to give the node no more work, and Serve to leave it; why not, if it refuses."""
        from ray.core.generated import autoscaler_pb2

        until_ms = int((time.time() + limit_s) * 1000)
        # Of Ray's two reasons the one that also takes a node that has work.
        reason = autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION
        accepted, refusal = self._gcs.drain_node(node_id, reason, "roundhouse drain", until_ms)
        return None if accepted else str(refusal)

    def replicas(self, node_id: str) -> list[str]:
        """Serve's replicas on a node, as `application:deployment`."""
        actors = self._state.actor_table(None, actor_state_name="ALIVE").values()
        names = [a["ActorClassName"] for a in actors if a["Address"]["NodeID"] == node_id]
        return [name.removeprefix(REPLICA) for name in names if name.startswith(REPLICA)]


def _left(cluster: Cluster, node_id: str, port: int) -> list[str]:
    """What still keeps the node."""
    connections = sum(
        1
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_ESTABLISHED and each.laddr and each.laddr.port == port
    )
    return cluster.replicas(node_id) + [f"{connections} connections"] * bool(connections)


def _address() -> str | None:
    from ray._private.utils import read_ray_address

    named = os.environ.get("RAY_ADDRESS")
    found: str | None = named if named and named != "auto" else read_ray_address()
    return found


def _refuse(message: str) -> int:
    print(f"roundhouse: {message}", file=sys.stderr)
    return 1
