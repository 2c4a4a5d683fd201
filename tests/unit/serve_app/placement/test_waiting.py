"""Why a replica waits, from what Serve says of it."""

import json
from typing import Any

import pytest
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, DeploymentStatusOverview

from serve_app.application_status import application_from_status
from serve_app.placement.waiting import asked
from tests.unit.serve_app.placement.nodes import CPU_NODE, gpu_node

NODES = (CPU_NODE, gpu_node("g", 4))
SLOW = (
    "Deployment 'vllm' in application 'm' has 1 replicas that have taken more than 30s to be "
    "scheduled. This may be due to waiting for the cluster to auto-scale or for a runtime "
    "environment to be installed. Resources required for each replica: {required}, total "
    "resources available: {{}}. Use `ray status` for more details."
)


def overview(message: str) -> ApplicationStatusOverview:
    deployment = DeploymentStatusOverview(
        status="UPDATING",
        status_trigger="CONFIG_UPDATE_STARTED",
        replica_states={"STARTING": 1},
        message=message,
    )
    return ApplicationStatusOverview(
        status=ApplicationStatus.DEPLOYING,
        message="",
        last_deployed_time_s=1.0,
        deployments={"vllm": deployment},
    )


@pytest.mark.parametrize(
    ("required", "state", "reason"),
    [
        ({"GPU": 8}, "failed", "it asks one node for 8 GPUs; the largest has 4"),
        ({"CPU": 1, "GPU": 4}, "warming", "waits for room: 4 GPUs of one node"),
        ([{"CPU": 1, "GPU": 1}, {"GPU": 1}], "warming", "waits for room: 2 GPUs in 2 bundles"),
        ([{"GPU": 1}] * 5, "failed", "asks for 5 GPUs; all nodes together have 4"),
    ],
)
def test_waiting(required: Any, state: str, reason: str) -> None:
    """A model that no node could hold has failed, with the reason; one that waits for others to
    go is warming."""
    status = overview(SLOW.format(required=json.dumps(required)))
    application = application_from_status("m", status, lambda: NODES)
    assert application is not None
    assert application.state == state
    assert reason in (application.reason or "")


@pytest.mark.parametrize("text", ["", "still loading", SLOW.format(required='"UNKNOWN"')])
def test_other_messages(text: str) -> None:
    """Whatever else Serve says is passed on; no node is looked up for it."""
    assert asked(text) is None
    application = application_from_status("m", overview(text), lambda: pytest.fail("looked"))
    assert application is not None
    assert (application.state, application.reason) == ("warming", text[:500] or None)
