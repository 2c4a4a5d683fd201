"""What Serve says of an application, in the router's terms: its state, and why it is so."""

import time
from collections.abc import Callable, Mapping, Sequence

from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, ReplicaState

from serve_app.directory import RUNNING_REPLICAS, STARTING_REPLICAS, Application, State
from serve_app.placement import waiting
from serve_app.placement.live import cluster_nodes
from serve_app.placement.node import Node

BROKEN = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
COMING = (ApplicationStatus.DEPLOYING, ApplicationStatus.NOT_STARTED)
UNKNOWN_BACKEND = "unknown"
MAX_REASON_CHARS = 500


def application_from_status(
    name: str,
    overview: ApplicationStatusOverview,
    nodes: Callable[[], Sequence[Node]] = cluster_nodes,
) -> Application | None:
    """One application of Serve's status; None for one that is being taken down.

    One that is still being built has no deployment yet, but counts: it should run. One whose
    replicas wait for a place is held against the `nodes`. Blocks while they are looked up.
    """
    if overview.status == ApplicationStatus.DELETING:
        return None
    backend, deployment = next(iter(overview.deployments.items()), (UNKNOWN_BACKEND, None))
    states = deployment.replica_states if deployment else {}
    replicas = {ReplicaState(name).value: num for name, num in states.items()}
    state = state_from_replicas(overview.status, replicas)
    message = (deployment.message if deployment else "") or overview.message
    if state == "warming" and (shape := waiting.asked(message)):
        message, state = waiting.explained(shape, nodes())
    has_reason = (
        state in {"failed", "warming"} or overview.status == ApplicationStatus.DEPLOY_FAILED
    )
    return Application(
        name=name,
        backend=backend,
        state=state,
        since_s=time.time(),
        replicas=replicas,
        reason=reason_from_message(message) if has_reason else None,
        version=overview.last_deployed_time_s,
    )


def state_from_replicas(status: ApplicationStatus, replicas: Mapping[str, int]) -> State:
    """A replica that runs can answer, whatever else is going on."""
    if any(replicas.get(name) for name in RUNNING_REPLICAS):
        return "running"
    starting = any(replicas.get(name) for name in STARTING_REPLICAS)
    if status == ApplicationStatus.DEPLOY_FAILED or (status in BROKEN and not starting):
        return "failed"
    return "warming" if status in COMING or starting else "cold"


def reason_from_message(message: str) -> str | None:
    """The last line of a traceback says what went wrong; the rest says where in our code."""
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    return lines[-1][:MAX_REASON_CHARS] if lines else None
