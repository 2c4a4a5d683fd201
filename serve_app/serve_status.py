"""What Serve's controller says of the applications, asked so that it costs next to nothing.

`serve.status()` tells it all and anew each time, and pickles two classes for every deployment: 6 ms
of CPU per application, more than a second per look at 200 of them (benchmarks/RESULTS.md). Here the
controller is asked for its short statuses, which are a few bytes per application, and only for what
has changed or is on the move for the details. Of an application whose new version is being built,
or could not be, Serve lists no deployments, though the old one serves on: the controller is asked
which replicas run. All are its own methods and not Serve's public ones: where a Ray has them not,
`serve.status()` does it, and an application that is being built looks as if it had no replicas.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray import serve
from ray.exceptions import GetTimeoutError, RayTaskError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve.generated.serve_pb2 import ApplicationStatus as StatusNumber
from ray.serve.generated.serve_pb2 import StatusOverview
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentDetails,
    DeploymentStatus,
    DeploymentStatusOverview,
    DeploymentStatusTrigger,
    ReplicaState,
)
from ray.serve.schema import ServeStatus as PublicStatus

from serve_app.directory import RECOVERING, RUNNING_REPLICAS

logger = logging.getLogger("roundhouse")

ANSWER_TIMEOUT_S = 10.0
# What nothing announced is seen by then at the latest: a replica that moves to another node.
KEPT_S = 30.0
STATUS_PREFIX = "APPLICATION_STATUS_"
NUM_AT_ONCE = 4  # with each come 110 kB of Serve's own classes, pickled, by the object store
DOUBTED_S = 15.0  # the controller itself hears of a death after a look or two of its own
NUM_SPREAD = 8  # so that what was read together is not read together again

# How many requests each running replica takes at a time, by application and deployment.
Running = Mapping[tuple[str, str], Sequence[int]]


class Controller(Protocol):
    """What Serve's controller can be asked."""

    def statuses(self) -> Sequence[bytes]:
        """The short status of every application. Raises: AttributeError if it does not know."""

    def details(self, deployments: Sequence[tuple[str, str]]) -> Sequence[DeploymentDetails | None]:
        """Those of each (application, deployment); None for one that is not there (any more)."""

    def running(self) -> Running:
        """The running replicas of every (application, deployment) there is, old ones included.
        Raises: AttributeError if it does not know."""


class ServeController:
    """The controller of the Serve instance that this process belongs to."""

    def __init__(self) -> None:
        self._actor: Any = None

    def statuses(self) -> Sequence[bytes]:
        try:
            if self._actor is None:
                self._actor = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
            found = self._actor.list_serve_statuses.remote()
            statuses: Sequence[bytes] = ray.get(found, timeout=ANSWER_TIMEOUT_S)
        except Exception:
            self._actor = None  # there may be another by the next look
            raise
        return statuses

    def details(self, deployments: Sequence[tuple[str, str]]) -> Sequence[DeploymentDetails | None]:
        found = [self._actor.get_deployment_details.remote(*names) for names in deployments]
        return [_told(details) for details in found]

    def running(self) -> Running:
        found = ray.get(self._actor._all_running_replicas.remote(), timeout=ANSWER_TIMEOUT_S)
        return {
            (deployment.app_name, deployment.name): [r.max_ongoing_requests for r in replicas]
            for deployment, replicas in found.items()
        }


def _told(details: Any) -> DeploymentDetails | None:
    try:
        told: DeploymentDetails = ray.get(details, timeout=ANSWER_TIMEOUT_S)
    except RayTaskError:
        return None
    return told


@dataclass(frozen=True, slots=True)
class Status:
    """An application as Serve describes it. `takes` is how many requests its running replicas take
    at a time; None where that is not known."""

    name: str
    overview: ApplicationStatusOverview
    takes: int | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing changes without the short status changing too."""
        deployments = self.overview.deployments.values()
        return self.overview.status == ApplicationStatus.RUNNING and all(
            d.status == DeploymentStatus.HEALTHY and set(d.replica_states) <= {ReplicaState.RUNNING}
            for d in deployments
        )


@dataclass(slots=True)
class _Kept:
    status: Status
    until_s: float


@dataclass(slots=True)
class ServeStatus:
    """Reads the statuses, and keeps them: what has not changed is the same object at each look."""

    controller: Controller = field(default_factory=ServeController)
    public: Callable[[], PublicStatus] = serve.status
    _raw: Sequence[bytes] = ()
    _found: Sequence[Status] = ()
    _kept: dict[bytes, _Kept] = field(default_factory=dict)
    _due_s: float = 0.0
    _doubted: dict[str, float] = field(default_factory=dict)
    _running: Running | None = None  # at this look, if it was asked for

    def doubt(self, name: str) -> None:
        """Reads an application at each look for a while: it is not as was said."""
        self._doubted[name] = time.monotonic() + DOUBTED_S

    def read(self) -> Sequence[Status]:
        """The status of every application, now. Blocks."""
        try:
            raw = self.controller.statuses()
        except AttributeError:
            found = self.public().applications
            return [Status(name, overview) for name, overview in found.items()]
        now_s = time.monotonic()
        for name, until_s in list(self._doubted.items()):  # another thread may add to it
            if until_s < now_s:
                del self._doubted[name]
        if raw != self._raw or now_s >= self._due_s or self._doubted:
            self._learn(raw, now_s)
        return self._found

    def _learn(self, raw: Sequence[bytes], now_s: float) -> None:
        self._running = None
        kept = self._kept = {key: found for key in raw if (found := self._kept.get(key))}
        due_at_s = {key: self._due_at_s(kept.get(key)) for key in raw}
        due = sorted((key for key in raw if now_s >= due_at_s[key]), key=due_at_s.__getitem__)
        for start in range(0, len(due), NUM_AT_ONCE):
            try:
                self._keep(due[start : start + NUM_AT_ONCE], now_s)
            except GetTimeoutError:
                if len(kept) < len(raw):
                    raise
                break  # all are known; those that were not read now come first next time
        self._raw = raw
        self._found = [kept[key].status for key in raw]
        self._due_s = min((found.until_s for found in kept.values()), default=now_s + KEPT_S)

    def _keep(self, due: Sequence[bytes], now_s: float) -> None:
        """What has been read stays read, even if the controller is too busy to tell the rest."""
        kept = self._kept
        for number, (key, read) in enumerate(zip(due, self._read(due), strict=True)):
            # The same object, so that it is seen to be the same.
            status = kept[key].status if key in kept and kept[key].status == read else read
            kept_s = KEPT_S * (1 + number % NUM_SPREAD / NUM_SPREAD) if status.settled else 0.0
            kept[key] = _Kept(status, now_s + kept_s)

    def _due_at_s(self, kept: _Kept | None) -> float:
        return 0.0 if kept is None or kept.status.name in self._doubted else kept.until_s

    def _read(self, raw: Sequence[bytes]) -> Iterator[Status]:
        """Of each short status the whole."""
        short = [StatusOverview.FromString(key) for key in raw]
        asked = [(s.name, name) for s in short for name in _deployments(s)]
        told = dict(zip(asked, self.controller.details(asked), strict=True))
        for status in short:
            deployments = {
                name: details
                for name in _deployments(status)
                if (details := told[status.name, name]) is not None
            }
            if deployments:
                yield Status(status.name, _overview(status, deployments), _takes(deployments))
            else:  # it is being built, perhaps only since its short status was told
                yield _status_of_old(status, self._all_running())

    def _all_running(self) -> Running:
        if self._running is None:
            try:
                self._running = self.controller.running()
            except AttributeError:
                self._running = {}
        return self._running


def _status_of_old(status: Any, running: Running) -> Status:
    """That of an application of which only the old version's replicas are known."""
    overview = _overview(status, {})
    takes = None
    for (application, deployment), replicas in running.items():
        if application == status.name:
            takes = sum(replicas)
            overview.deployments[deployment] = DeploymentStatusOverview(
                status=DeploymentStatus.UPDATING,
                status_trigger=DeploymentStatusTrigger.UNSPECIFIED,
                replica_states={ReplicaState.RUNNING: len(replicas)} if replicas else {},
                message="",
            )
    return Status(status.name, overview, takes)


def _deployments(status: Any) -> Iterator[str]:
    return (info.name for info in status.deployment_statuses.deployment_status_infos)


def _overview(
    status: Any, deployments: Mapping[str, DeploymentDetails]
) -> ApplicationStatusOverview:
    """As `serve.status()` has it."""
    short = status.app_status
    return ApplicationStatusOverview(
        status=ApplicationStatus(StatusNumber.Name(short.status).removeprefix(STATUS_PREFIX)),
        message=short.message,
        last_deployed_time_s=short.deployment_timestamp,
        deployments={
            name: DeploymentStatusOverview(
                status=details.status,
                status_trigger=details.status_trigger,
                replica_states=dict(Counter(replica.state for replica in details.replicas)),
                message=details.message,
            )
            for name, details in deployments.items()
        },
    )


def _takes(deployments: Mapping[str, DeploymentDetails]) -> int | None:
    """Of an application with one deployment, which ours are. Those that are found again count."""
    if len(deployments) != 1:
        return None
    (details,) = deployments.values()
    running = [r for r in details.replicas if r.state in (*RUNNING_REPLICAS, RECOVERING)]
    return int(details.deployment_config.max_ongoing_requests) * len(running)
