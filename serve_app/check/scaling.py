"""How many replicas a model should have, said twice or by half: Serve would misunderstand."""

from collections.abc import Iterator, Mapping
from typing import Any

from serve_app.check.inventory import Application, Inventory, Role
from serve_app.check.problem import Path, Problem

DECIDING = ("target_ongoing_requests", "policy")


def check(inventory: Inventory) -> Iterator[Problem]:
    """The `deployments:` of models that scale, and of the router."""
    for application in inventory.of(Role.MODEL):
        in_args = application.args.get("autoscaling") is not None
        for path, options in application.deployments():
            yield from _twice(options, path) if in_args else _by_half(options, path)
        yield from _never(application)
    for router in inventory.of(Role.ROUTER):
        for path, options in router.deployments():
            if router.args.get("autoscaling") is not None:
                yield from _twice(options, path)


def _twice(options: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    for key in ("num_replicas", "autoscaling_config"):
        if options.get(key) is not None:
            yield Problem((*path, key), "`autoscaling` in the args says it already; keep one")


def _by_half(options: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """Serve's own default is two requests a replica: any model would have all its replicas."""
    scaling = options.get("autoscaling_config")
    if not isinstance(scaling, dict) or any(key in scaling for key in DECIDING):
        return
    most = scaling.get("max_replicas")
    if isinstance(most, int) and most > 1:
        message = (
            "names neither `target_ongoing_requests` nor `policy`: Serve would add replicas beyond "
            "2 requests each; or put it into the args, as `autoscaling`"
        )
        yield Problem((*path, "autoscaling_config"), message)


def _never(application: Application) -> Iterator[Problem]:
    """What a replica does not take is refused, so there would never be enough for a second one."""
    scaling = application.args.get("autoscaling")
    target = scaling.get("target_ongoing_requests") if isinstance(scaling, dict) else None
    most = application.args.get("max_ongoing_requests")
    if isinstance(target, int | float) and isinstance(most, int) and target >= most:
        path = (*application.path, "args", "autoscaling", "target_ongoing_requests")
        yield Problem(path, f"not below max_ongoing_requests, {most}: a replica never has more")
