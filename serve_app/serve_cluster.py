"""Ray Serve as the router's cluster: its status read, its handles called, its errors translated."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import ray
from ray import serve
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator
from ray.serve.schema import ReplicaState

from deployments.errors import (
    BackendError,
    BackendOverloaded,
    BackendUnavailable,
    NotTaken,
    ReplicaDied,
    RoundhouseError,
)
from deployments.exchange import Exchange, Item, ModelCard
from deployments.progress import Progress
from serve_app import loading
from serve_app.application_status import application_from_status
from serve_app.directory import RECOVERING, RUNNING_REPLICAS, Application
from serve_app.roll_call import RollCall
from serve_app.serve_status import ServeStatus, Status
from serve_app.wire.frames import Ticket
from serve_app.wire.listener import Listener
from serve_app.wire.replica_wire import Refused

CARD_TIMEOUT_S = 5.0
TAKE_TIMEOUT_S = 5.0

# What Serve and Ray raise, and what a client is told. The first row that matches counts.
TRANSLATIONS: tuple[tuple[type[BaseException], type[BackendError], str, float], ...] = (
    (BackPressureError, BackendOverloaded, "The model's queue is full.", 1),
    (DeploymentUnavailableError, BackendUnavailable, "The model has no replica that runs.", 5),
    (RayActorError, ReplicaDied, "The model's replica died.", 1),
    (RequestCancelledError, BackendUnavailable, "The model gave the request up.", 1),
    (GetTimeoutError, BackendUnavailable, "The model does not answer.", 1),
    (RayServeException, BackendUnavailable, "The model cannot be reached.", 1),
    (RayError, BackendUnavailable, "The model's replica failed.", 1),
)


class ServeCluster:
    """The applications of the Serve instance that this replica runs in, except its own."""

    def __init__(self, own_application: str) -> None:
        self._own = own_application
        self._status = ServeStatus()
        self._statuses: Sequence[Status] | None = None
        self._found: Sequence[Application] = ()
        self._seen: dict[str, tuple[tuple[Status, int], Application]] = {}
        self._handles: dict[tuple[str, str], DeploymentHandle[Any]] = {}
        self._listener = Listener(ray.util.get_node_ip_address())
        self._roll_call = RollCall(self._listener, self._join)
        self._listens = False
        self._begins_to_listen = asyncio.Lock()

    async def applications(self) -> Sequence[Application]:
        found = await asyncio.to_thread(self._applications)
        await self._listening()
        self._roll_call.hold(found)
        await self._let_go({application.name for application in found})
        return found

    async def _let_go(self, names: set[str]) -> None:
        """Ends the handles of applications that are gone: each polls the controller for ever."""
        for key in [key for key in self._handles if key[0] not in names]:
            await self._handles.pop(key).shutdown_async()

    def _applications(self) -> Sequence[Application]:
        """What has not changed is the same object as at the last look."""
        statuses = self._status.read()
        if statuses is not self._statuses:
            self._statuses, self._found = statuses, self._learnt(statuses)
        return self._found

    def _learnt(self, statuses: Sequence[Status]) -> Sequence[Application]:
        found = {status.name: status for status in statuses}
        num_routers = num_running(found.pop(self._own, None))
        is_back = has_come_back(statuses)
        seen, self._seen = self._seen, {}
        for name, status in found.items():
            known, application = seen.get(name, (None, None))
            # Why one waits depends on the nodes too.
            if application is None or known != (status, num_routers) or not status.settled:
                told = application_from_status(name, status.overview)
                if told is None:
                    continue
                if application is None or not self._runs_on(application, told, is_back):
                    takes = room(status.takes, num_routers)
                    application = replace(told, room=takes, settled=status.settled)
            self._seen[name] = ((status, num_routers), application)
        return [application for _, application in self._seen.values()]

    def _runs_on(self, known: Application, told: Application, is_back: bool) -> bool:
        """Whether an application runs as it did, though none of its replicas is said to run: a
        controller that has come back has yet to hear from those that it finds, and tells nothing
        of them while the application is being built. A wire tells that there is one."""
        if known.state != "running" or told.state == "running":
            return False
        if told.replicas:
            return RECOVERING in told.replicas
        has_wires = self._listener.pool(told.name).num_usable > 0
        return told.state == "warming" and (is_back or has_wires)

    async def card(self, application: Application) -> ModelCard:
        handle = self._handle(application).options(method_name="card", stream=False)
        try:
            async with asyncio.timeout(CARD_TIMEOUT_S):
                card: ModelCard = await handle.remote()
        except (RayError, RayServeException, TimeoutError) as exc:
            raise error_from_serve(exc) from None
        return card

    async def wake(self, application: Application) -> None:
        """Any call does it: Serve starts a replica for one that waits, and keeps it waiting."""
        handle = self._handle(application).options(method_name="card", stream=False)
        try:
            await handle.remote()
        except (RayError, RayServeException) as exc:
            raise error_from_serve(exc) from None

    def doubt(self, name: str) -> None:
        self._status.doubt(name)

    async def loading(self) -> Mapping[str, Sequence[Progress]]:
        return await loading.read()

    def num_queued(self, application: Application) -> int:
        return self._listener.pool(application.name).num_waiting

    async def exchange(
        self, application: Application, request: Exchange
    ) -> AsyncGenerator[Item, None]:
        wires = self._listener.pool(application.name)
        while inbox := await wires.open(request):
            try:
                while items := await inbox.read():
                    for item in items:
                        yield item
                return
            except Refused:
                continue
            finally:
                inbox.close()
        async with aclosing(self._by_handle(application, request)) as slower:
            async for item in slower:
                yield item

    async def _by_handle(
        self, application: Application, request: Exchange
    ) -> AsyncGenerator[Item, None]:
        """Where there is no wire yet, or can be none."""
        response = self._handle(application).remote(request)
        try:
            await _taken(response)
            async for bundle in response:
                if isinstance(bundle, RoundhouseError):
                    raise bundle
                for item in bundle:
                    yield item
        except (RayError, RayServeException) as exc:
            raise error_from_serve(exc) from None
        finally:
            # Ends the call on the replica too; after its end this changes nothing.
            response.cancel()

    async def _listening(self) -> None:
        """Begins to, once: where replicas find this router."""
        async with self._begins_to_listen:
            if not self._listens:
                await self._listener.start()
                self._listens = True

    async def _join(self, application: Application, ticket: Ticket) -> None:
        """Has all replicas that run know where this router is found."""
        try:
            response = self._handle(application).broadcast("join", ticket)
            await response.results_async(timeout_s=CARD_TIMEOUT_S, return_exceptions=True)
        except (RayError, RayServeException, TimeoutError) as exc:
            raise error_from_serve(exc) from None

    def _handle(self, application: Application) -> DeploymentHandle[Any]:
        """One configured handle per deployment, kept: each one costs a long poll."""
        key = (application.name, application.backend)
        if key not in self._handles:
            handle = serve.get_deployment_handle(application.backend, application.name)
            self._handles[key] = handle.options(
                method_name="exchange",
                stream=True,
                # Serve's default, cloudpickle, costs several times as much for a piece of bytes.
                request_serialization="pickle",
                response_serialization="pickle",
            )
        return self._handles[key]


async def _taken(response: DeploymentResponseGenerator[Any]) -> None:
    """Returns when a replica has taken the request, which it says at once.

    Serve would wait for one that died as long as it takes to replace it. Raises: NotTaken.
    """
    try:
        async with asyncio.timeout(TAKE_TIMEOUT_S):
            await anext(response)
    except TimeoutError as exc:
        message = "No replica of the model takes the request now."
        raise NotTaken(message, retry_after_s=1) from exc


def num_running(own: Status | None) -> int:
    """How many replicas of the router run, this one included."""
    if own is None:
        return 1
    states = [deployment.replica_states for deployment in own.overview.deployments.values()]
    running = (ReplicaState.RUNNING, ReplicaState.RECOVERING)
    return max(1, sum(int(found.get(state, 0)) for found in states for state in running))


def has_come_back(statuses: Sequence[Status]) -> bool:
    """Whether the controller has just been started anew: it finds replicas, or has heard from none
    at all, though the one that asks runs."""
    deployments = [d for status in statuses for d in status.overview.deployments.values()]
    states = {ReplicaState(state).value for d in deployments for state in d.replica_states}
    return RECOVERING in states or states.isdisjoint(RUNNING_REPLICAS)


def room(takes: int | None, num_routers: int) -> int | None:
    """The part of one router in what the replicas of a model take: HAProxy gives each as much to
    do as the others."""
    return None if takes is None else -(-takes // num_routers)


def error_from_serve(exc: BaseException) -> BackendError:
    """The error a client is told for one of Serve's or Ray's."""
    for kind, error, message, retry_after_s in TRANSLATIONS:
        if isinstance(exc, kind):
            return error(message, retry_after_s=retry_after_s)
    return BackendUnavailable("The model cannot be reached.", retry_after_s=1)
