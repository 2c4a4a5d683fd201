"""How many replicas a model should have, said twice or by half: Serve would misunderstand."""

from collections.abc import Iterator, Mapping
from typing import Any

from serve_app.check.inventory import Inventory, Role
from serve_app.check.problem import Path, Problem

DECIDING = ("target_ongoing_requests", "policy")


def check(inventory: Inventory) -> Iterator[Problem]:
    """The `deployments:` of models that scale."""
    for application in inventory.of(Role.MODEL):
        in_args = application.args.get("autoscaling") is not None
        for path, options in application.deployments():
            yield from _twice(options, path) if in_args else _by_half(options, path)


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
