"""Ray Serve's words in ours: states, reasons and errors, without a cluster."""

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    DeploymentStatusOverview,
    DeploymentStatusTrigger,
    ReplicaState,
)

from deployments.errors import BackendError, BackendOverloaded, BackendUnavailable, ReplicaDied
from serve_app.application_status import application_from_status, reason_from_message
from serve_app.serve_cluster import error_from_serve


def overview(
    status: str, replicas: dict[str, int] | None = None, message: str = ""
) -> ApplicationStatusOverview:
    """An application with one deployment, or with none while it is being built."""
    deployments = {}
    if replicas is not None:
        deployments["vllm"] = DeploymentStatusOverview(
            status=DeploymentStatus.UPDATING,
            status_trigger=DeploymentStatusTrigger.UNSPECIFIED,
            replica_states={ReplicaState(k): v for k, v in replicas.items()},
            message=message,
        )
    return ApplicationStatusOverview(ApplicationStatus(status), message, 5.0, deployments)


@pytest.mark.parametrize(
    ("status", "replicas", "state"),
    [
        ("RUNNING", {"RUNNING": 1}, "running"),
        ("RUNNING", {}, "cold"),
        ("RUNNING", {"STARTING": 1}, "warming"),
        ("RUNNING", {"STOPPING": 1}, "cold"),
        ("NOT_STARTED", None, "warming"),
        ("DEPLOYING", None, "warming"),
        ("DEPLOYING", {"STARTING": 1}, "warming"),
        ("DEPLOYING", {"RUNNING": 1, "STARTING": 1}, "running"),
        ("DEPLOY_FAILED", {"RUNNING": 1}, "running"),
        ("DEPLOY_FAILED", {}, "failed"),
        ("DEPLOY_FAILED", None, "failed"),
        ("UNHEALTHY", {}, "failed"),
        ("UNHEALTHY", {"STARTING": 1}, "warming"),
    ],
)
def test_states(status: str, replicas: dict[str, int] | None, state: str) -> None:
    """A replica that runs can answer; one that is being built or started will; else it failed."""
    application = application_from_status("demo", overview(status, replicas))
    assert application is not None
    assert application.state == state
    assert application.backend == ("unknown" if replicas is None else "vllm")
    assert application.reason is None


def test_why_it_does_not_run() -> None:
    """What Serve says of a model that failed, or that waits for resources, the operator sees."""
    for status in ("DEPLOY_FAILED", "DEPLOYING"):
        application = application_from_status("demo", overview(status, {}, "no CPU is free"))
        assert application is not None
        assert application.reason == "no CPU is free"


def test_why_the_new_version_does_not_run() -> None:
    """A model whose old version answers, since the new one could not be built, says why too."""
    told = overview("DEPLOY_FAILED", {"RUNNING": 1}, "ValueError: nonsense")
    application = application_from_status("demo", told)
    assert application is not None
    assert (application.state, application.reason) == ("running", "ValueError: nonsense")


def test_what_goes_is_gone() -> None:
    """An application that is being deleted is not there any more."""
    assert application_from_status("demo", overview("DELETING", {"RUNNING": 1})) is None


def test_reason_is_the_last_line() -> None:
    """Of a traceback the operator is told what went wrong, and not where in our code."""
    traceback = "Traceback (most recent call last):\n  File x\nStartError: no such folder\n\n"
    assert reason_from_message(traceback) == "StartError: no such folder"
    assert len(reason_from_message("x" * 9000)) == 500
    assert reason_from_message(" \n") is None


@pytest.mark.parametrize(
    ("raised", "error", "status"),
    [
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), BackendOverloaded, 429),
        (DeploymentUnavailableError(DeploymentID("vllm", "demo")), BackendUnavailable, 503),
        (ActorDiedError(), ReplicaDied, 503),
        (ActorUnavailableError("gone", None), ReplicaDied, 503),
        (RayError("anything"), BackendUnavailable, 503),
        (TimeoutError(), BackendUnavailable, 503),
    ],
)
def test_errors(raised: BaseException, error: type[BackendError], status: int) -> None:
    """Whatever Serve raises, the client may try again, and hears nothing of Serve."""
    told = error_from_serve(raised)
    assert type(told) is error
    assert told.status == status
    assert told.retry_after_s is not None
    assert "demo" not in told.message
