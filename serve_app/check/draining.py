"""Clocks in the wrong order: requests would be cut off while the router changes."""

from collections.abc import Iterator, Mapping
from typing import Any

from serve_app.check.inventory import HAPROXY, Inventory, Role
from serve_app.check.problem import Path, Problem
from serve_app.config import RouterSettings
from serve_app.draining import DRAIN_S, HARD_STOP, SERVES_HARD_STOP_S

DRAIN = "graceful_shutdown_timeout_s"
ENVIRONMENT: Path = ("controller_options", "runtime_env", "env_vars")


def check(inventory: Inventory) -> Iterator[Problem]:
    """The router's drain between the time that a request may take, and HAProxy's."""
    for application in inventory.of(Role.ROUTER):
        drain_s = DRAIN_S
        for path, options in application.deployments():
            drain_s = _seconds(options.get(DRAIN), DRAIN_S)
            yield from _shorter_than_requests(options, path)
        yield from _longer_than_haproxys(inventory.controller_env, drain_s)


def _shorter_than_requests(options: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """Where the file names a drain, it is the operator's choice."""
    settings = options.get("user_config")
    asked = settings.get("request_timeout_s") if isinstance(settings, dict) else None
    timeout_s = _seconds(asked, RouterSettings().request_timeout_s)
    if DRAIN not in options and timeout_s >= DRAIN_S:
        message = (
            f"a router that goes has {DRAIN_S:g} s for the requests it has begun; with this, set "
            f"`{DRAIN}` of the deployment too, to more"
        )
        yield Problem((*path, "user_config", "request_timeout_s"), message)


def _longer_than_haproxys(env: Mapping[str, Any], drain_s: float) -> Iterator[Problem]:
    hard_stop_s = _seconds(env.get(HARD_STOP), SERVES_HARD_STOP_S)
    if env.get(HAPROXY) == "1" and hard_stop_s <= drain_s:
        message = (
            f"HAProxy cuts off streams {hard_stop_s:g} s after a change of the routers, which are "
            f"drained for {drain_s:g} s: set {HARD_STOP} to more"
        )
        yield Problem((*ENVIRONMENT, HARD_STOP), message)


def _seconds(value: object, default: float) -> float:
    """What is no number is `schema`'s to refuse."""
    try:
        return default if value is None else float(str(value))
    except ValueError:
        return default
