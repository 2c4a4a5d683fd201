"""The two builders that serve_config.yaml names, and the deployments they make.

The only place where a backend class becomes a Serve deployment.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve import Application, Deployment
from starlette.types import ASGIApp

from deployments import backends, catalog, spans
from deployments.config import BackendConfig
from deployments.errors import RoundhouseError
from deployments.exchange import EVENT_STREAM, Exchange, Head, Item, ModelCard
from serve_app import draining, haproxy_guard, scaling
from serve_app.answering import told
from serve_app.check.refusal import in_a_line
from serve_app.config import RouterArgs, RouterSettings
from serve_app.error_response import log_unforeseen
from serve_app.guard import digest
from serve_app.loading import telling
from serve_app.loop_use import LoopUse
from serve_app.metrics.export import Exporter
from serve_app.metrics.replica import ReplicaMetrics
from serve_app.own_replica import own_application, own_limit, own_replica
from serve_app.placement import request
from serve_app.placement.granted import granted, join_group
from serve_app.placement.live import cluster_nodes
from serve_app.placement.node import Node
from serve_app.replica_log import log_engine_with_serve, log_with_serve
from serve_app.router import RouterApp
from serve_app.serve_cluster import ServeCluster
from serve_app.wire.desk import Bundles, Desk
from serve_app.wire.frames import Ticket
from serve_app.wire.membership import Membership

ROUTER_CPUS = 0.2  # of an operator's count; the router shares its node with API models
# What is wrong with a model is seldom gone the next time, and loading it takes its time.
MAX_STARTS = 3

Message = Sequence[Item] | RoundhouseError  # what a replica says by the handle


def router(args: RouterArgs) -> Application:
    """The router application: `import_path: serve_app.app:router`."""
    return router_deployment(args, cluster_nodes()).bind(args.model_dump())


def router_deployment(args: RouterArgs, nodes: Sequence[Node]) -> Deployment:
    """What Serve is asked for, for the replicas of the router, in a cluster of these nodes."""
    return serve.deployment(
        Router,
        name="Router",
        max_ongoing_requests=4096,
        **draining.router_options(),
        **request.cpu_options(ROUTER_CPUS, nodes),
        **scaling.of_router(args.autoscaling, nodes),
    )


def model(args: dict[str, Any]) -> Application:
    """A model application: `import_path: serve_app.app:model`.

    The deployment is named after its backend, so that Serve's status alone tells the kind.
    Raises: ValueError for args that do not validate.
    """
    return model_deployment(_configured(args), cluster_nodes()).bind(dict(args))


def _configured(args: dict[str, Any]) -> BackendConfig:
    try:
        return backends.configure(args)
    except ValidationError as error:
        kind = backends.BACKENDS[catalog.with_defaults(args)["backend"]]
        raise ValueError(in_a_line(error, kind.config, args, ("args",))) from None


def model_deployment(config: BackendConfig, nodes: Sequence[Node]) -> Deployment:
    """What Serve is asked for, for the replicas of a model, in a cluster of these nodes."""
    return serve.deployment(
        Model,
        name=config.backend,
        max_ongoing_requests=config.max_ongoing_requests,
        max_queued_requests=config.max_ongoing_requests,
        max_constructor_retry_count=MAX_STARTS,
        **draining.model_options(config),
        **request.options(config, nodes),
        **scaling.of_model(config),
    )


@serve.ingress()
class Router:
    """A router replica: CPU only, stateless but for its view of the cluster."""

    async def __init__(self, args: dict[str, Any]) -> None:  # type: ignore[misc] # Serve's form
        log_with_serve()
        haproxy_guard.start()
        variable = RouterArgs.model_validate(args).api_keys_env
        keys = os.environ.get(variable, "").split(",") if variable else []
        digests = [digest(key.strip()) for key in keys if key.strip()]
        if variable and not digests:
            # Rather not at all than open to everybody.
            raise ValueError(f"api_keys_env names {variable}, which is not set or empty")
        self._app = RouterApp(ServeCluster(own_application()), digests)
        self._exporter = Exporter(self._app.metrics.books)
        self._exporter.start()
        self._loop_use = LoopUse()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve's hook: what `serve_app.autoscaling:RouterPolicy` goes by."""
        return {"cpu_use": self._loop_use.since_last()}

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._app.asgi()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        self._app.settings = RouterSettings.model_validate(user_config)


class Model:
    """A backend's replica. Errors cross to the router as values, since Serve would log each with
    its traceback and hand on an exception of another class."""

    async def __init__(self, args: dict[str, Any]) -> None:  # type: ignore[misc] # Serve's form
        log_with_serve()
        haproxy_guard.start()
        config = granted(backends.configure(args))
        self._backend = backends.build(own_application(), config)
        join_group(self._backend)
        log_engine_with_serve(self._backend)
        self._desk = Desk(self._answer, own_limit() or 0)
        self._membership = Membership(own_application(), self._desk)
        async with telling(own_application(), own_replica()) as report:
            await self._backend.start(report)
        metrics = ReplicaMetrics(own_application(), config.backend, self._backend.load)
        metrics.started()
        self._exporter = Exporter(metrics.books)
        self._exporter.start()

    async def join(self, ticket: Ticket) -> bool:
        """Gives a router a wire to this replica, for all its further requests. Whether there is
        one: not where Serve must count them."""
        return bool(self._desk.limit) and await self._membership.join(ticket)

    async def exchange(self, request: Exchange) -> AsyncGenerator[Message, None]:
        """For a router that has no wire: at once nothing, since the request is taken; then the
        backend's items, and at last how it ended, if badly."""
        yield ()
        try:
            async with aclosing(self._answer(request)) as answer:
                async for bundle in answer:
                    yield bundle
        except RoundhouseError as exc:
            yield exc
        except Exception as exc:  # noqa: BLE001 - the edge of the backend: logged here, once
            log_unforeseen(exc, request.request_id)
            yield RoundhouseError()

    def _answer(self, request: Exchange) -> Bundles:
        return bundles(told(self._backend, request))

    async def card(self) -> ModelCard:
        return self._backend.card()

    async def num_running(self) -> int:
        return self._backend.num_running

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve's hook: what `serve_app.autoscaling` goes by."""
        uncounted = self._desk.num_open + self._membership.num_waiting
        return {**self._backend.load().as_stats(), "num_uncounted": float(uncounted)}

    async def check_health(self) -> None:
        await self._backend.check_health()

    async def __del__(self) -> None:
        """Called by Serve when the replica is taken down, after the requests that it counts have
        ended; the others do here."""
        await self._membership.leave()
        await self._backend.stop()
        await asyncio.to_thread(spans.flush)


async def bundles(items: AsyncGenerator[Item, None]) -> AsyncGenerator[Sequence[Item], None]:
    """As few messages as there can be: an answer that is not streamed in one, a stream's Head with
    its first bytes. Nothing waits that could leave."""
    held: list[Item] = []
    streamed = False
    async with aclosing(items):
        async for item in items:
            held.append(item)
            if isinstance(item, Head):
                streamed = item.content_type.startswith(EVENT_STREAM)
            elif streamed:
                yield held
                held = []
    if held:
        yield held
