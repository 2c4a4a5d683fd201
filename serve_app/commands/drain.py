"""`roundhouse drain`: empties a node of replicas before it ends, so that nothing is cut off.

Ray is told that the node goes; Serve starts its replicas elsewhere, lets those here finish, and has
the node's `/-/healthz` fail. This waits for it. Where nothing has come elsewhere in half of the
time, those here finish all the same. It ends no process, and no node.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

POLL_S = 1.0
NO_DEADLINE = 0  # as Ray has it
REPLICA = "ServeReplica:"  # how Serve's replicas begin as actors
EPILOG = """\
example, as `preStop` of a pod (cluster/kuberay/rayservice.yaml):
  roundhouse drain --limit-s 1300

The node takes no more work, and leaves the cluster by itself once nothing of Ray's runs on it.
Exit status: 0 no replica is left on it, and nobody is connected to its port; 1 not so after the
limit, or nothing was drained; 130 after Ctrl-C or SIGTERM. Ray knows no way back: a drain that is
cut short goes on, and the same command waits for the rest; to have the node back, start Ray on it
anew.
"""
CUT_SHORT = 130  # as a shell has it
GOES_ON = "takes no more work, and goes on being emptied; the same command waits for the rest"


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
    try:
        cluster = _cluster()
        node_id = _node(cluster, arguments.node_id)
        with _stopped_by_sigterm():
            left = _drain(cluster, node_id, arguments.port, deadline)
    except Refusal as exc:
        return _say(str(exc), 1)
    except KeyboardInterrupt:
        return _say(f"stopped waiting; if the node was being drained, it {GOES_ON}", CUT_SHORT)
    if left:
        still = ", ".join(left)
        return _say(f"after {arguments.limit_s} s there are still {still}; the node {GOES_ON}", 1)
    print("roundhouse: the node is empty", flush=True)
    return 0


class Refusal(Exception):
    """No node was drained; why not, for the operator."""


def _cluster() -> "Cluster":
    """The cluster that is known here. Raises: Refusal."""
    address = _address()
    if address is None:
        raise Refusal("no Ray cluster is known here; RAY_ADDRESS=HOST:PORT names one")
    return Cluster(address)


def _node(cluster: "Cluster", asked: str | None) -> str:
    """The node that is meant. Raises: Refusal."""
    node_ids = [asked] if asked else cluster.nodes_here()
    if len(node_ids) != 1:
        raise Refusal(f"{len(node_ids)} Ray nodes have this machine's address; say --node-id")
    nodes = cluster.nodes()
    if node_ids[0] not in nodes:
        alive = ", ".join(node_id for node_id, address in nodes.items() if address)
        raise Refusal(f"the cluster has no node {node_ids[0]}; there are {alive}")
    return node_ids[0]


def _drain(cluster: "Cluster", node_id: str, port: int, deadline: float) -> list[str]:
    """What still keeps the node when the time is over. Raises: Refusal."""
    if cluster.nodes()[node_id] is None:  # as it is soon after it was emptied
        return []
    if (refusal := cluster.drain(node_id)) is not None:
        raise Refusal(f"Ray does not drain node {node_id}: {refusal}")
    return _wait(cluster, node_id, port, deadline)


def _wait(cluster: "Cluster", node_id: str, port: int, deadline: float) -> list[str]:
    """What still keeps the node when the time is over; nothing if that came first.

    With a deadline that is nearer than a replica's own time to finish, Serve stops it at once, even
    if there is no other yet. So Ray hears of none while half of the time is left for that.
    """
    hurry_at, hurried = (time.monotonic() + deadline) / 2, False
    while (left := _left(cluster, node_id, port)) and time.monotonic() < deadline:
        if not hurried and time.monotonic() >= hurry_at:
            cluster.drain(node_id, deadline - time.monotonic())
            hurried = True
        time.sleep(POLL_S)
    return left


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM in this block is Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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

    def nodes(self) -> dict[str, str | None]:
        """The address of each node by its id; None for one that has ended."""
        table = self._state.node_table()
        return {n["NodeID"]: n["NodeManagerAddress"] if n["Alive"] else None for n in table}

    def nodes_here(self) -> list[str]:
        """The ids of the nodes with this machine's address."""
        import ray

        here = ray.util.get_node_ip_address()
        return [node_id for node_id, address in self.nodes().items() if address == here]

    def drain(self, node_id: str, limit_s: float | None = None) -> str | None:
        """Asks Ray to give the node no more work, and Serve to leave it, by then if a limit is
        given; why not, if it refuses. The last time counts."""
        from ray.core.generated import autoscaler_pb2

        until_ms = NO_DEADLINE if limit_s is None else int((time.time() + limit_s) * 1000)
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


def _say(message: str, status: int) -> int:
    print(f"roundhouse: {message}", file=sys.stderr)
    return status
