"""A Serve controller that says what a test has it say, in Serve's own words."""

from collections.abc import Sequence

from ray.serve.generated import serve_pb2
from ray.serve.schema import (
    DeploymentDetails,
    DeploymentSchema,
    DeploymentStatus,
    DeploymentStatusTrigger,
    ReplicaDetails,
    ReplicaState,
)

RUNNING = ["RUNNING"]


class ScriptedController:
    """A Serve controller as it answers over the wire: `replicas` by application; `asked` is what
    it was asked the details of, look by look."""

    def __init__(self, **replicas: list[str]) -> None:
        self.replicas = replicas
        self.version = dict.fromkeys(replicas, 1.0)
        self.healthy = dict.fromkeys(replicas, "HEALTHY")
        self.asked: list[list[str]] = []
        self.built: set[str] = set()
        self.untold: set[str] = set()  # whose short status only is told
        self.num_counts = 0

    def statuses(self) -> Sequence[bytes]:
        self.asked.append([])
        return [self._short(name) for name in self.replicas]

    def running(self) -> dict[tuple[str, str], list[int]]:
        self.num_counts += 1
        return {
            (name, "echo"): [8] * states.count("RUNNING") for name, states in self.replicas.items()
        }

    def _short(self, name: str) -> bytes:
        info = serve_pb2.DeploymentStatusInfo(
            name="echo", status=f"DEPLOYMENT_STATUS_{self.healthy[name]}"
        )
        application = serve_pb2.ApplicationStatusInfo(
            status="APPLICATION_STATUS_RUNNING", deployment_timestamp=self.version[name]
        )
        short = serve_pb2.StatusOverview(name=name, app_status=application)
        if name in self.built:
            application.status = serve_pb2.APPLICATION_STATUS_DEPLOYING
            short.app_status.CopyFrom(application)
        else:
            short.deployment_statuses.deployment_status_infos.append(info)
        return bytes(short.SerializeToString())

    def details(self, deployments: Sequence[tuple[str, str]]) -> Sequence[DeploymentDetails | None]:
        self.asked[-1] += [name for name, _ in deployments]
        return [self._details(name) for name, _ in deployments]

    def _details(self, name: str) -> DeploymentDetails | None:
        if name not in self.replicas or name in self.untold:
            return None
        states = [ReplicaState(state) for state in self.replicas[name]]
        return DeploymentDetails.model_construct(
            status=DeploymentStatus(self.healthy[name]),
            status_trigger=DeploymentStatusTrigger.UNSPECIFIED,
            message="",
            deployment_config=DeploymentSchema(name="echo", max_ongoing_requests=8),
            replicas=[ReplicaDetails.model_construct(state=state) for state in states],
        )
