"""GPU requests that no node could meet, or that an override takes away. Looks for no free GPUs.

What replicas ask for, and whether a node could hold them, is `serve_app.placement`'s to say, as for
`plan-cluster`; here it is told at the key of the file that asks.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.config import BackendConfig
from serve_app.check.args import configured
from serve_app.check.inventory import Application, Inventory
from serve_app.check.nodes import Node
from serve_app.check.problem import Path, Problem
from serve_app.placement.node import Node as ClusterNode
from serve_app.placement.request import options
from serve_app.placement.shape import Shape, objection


@dataclass(frozen=True, slots=True)
class Request:
    """GPUs that one replica, or one of its bundles, must find on a single node."""

    path: Path
    num_gpus: float
    in_group: bool = False


def check(inventory: Inventory, largest: Node | None) -> Iterator[Problem]:
    """`largest` None: nothing is known of the nodes, and only what Ray always refuses is told."""
    for application in inventory.applications:
        asked = _by_args(application, largest)
        overridden = False
        for path, said in application.deployments():
            actor = said.get("ray_actor_options")
            if isinstance(actor, dict) and asked:
                overridden = True
                yield from _lost(asked, actor, (*path, "ray_actor_options"))
            for request in _by_options(said, path):
                yield from _unmet(request, largest)
        if asked and not overridden:
            yield from _unmet(asked, largest)


def _by_args(application: Application, largest: Node | None) -> Request | None:
    """What the builder will ask of Serve; None where it asks for no GPU."""
    config, path = configured(application), (*application.path, "args")
    if not isinstance(config, BackendConfig):
        return None
    shape = Shape.of(options(config, _nodes(largest)))
    num_gpus = max(bundle.get("GPU", 0.0) for bundle in shape.bundles)
    if not num_gpus:
        return None
    return Request((*path, *_key(config)), num_gpus, in_group=config.spans_nodes)


def _key(config: BackendConfig) -> tuple[str, ...]:
    """The one of the args that says how many GPUs; none where they are the default."""
    if config.spans_nodes:
        return ("pipeline_parallel_size",)
    if config.num_gpus is not None:
        return ("num_gpus",)
    return ("tensor_parallel_size",) if config.num_shards > 1 else ()


def _nodes(largest: Node | None) -> tuple[ClusterNode, ...]:
    """As placement knows nodes. Of the largest only the GPUs are known: the rest is enough."""
    if largest is None:
        return ()
    resources = {"CPU": math.inf, "memory": math.inf, "GPU": largest.num_gpus}
    return (ClusterNode("the largest", resources, known_gpu_memory_gb=largest.memory_gb),)


def _by_options(said: Mapping[str, Any], path: Path) -> Iterator[Request]:
    actor, bundles = said.get("ray_actor_options"), said.get("placement_group_bundles")
    if isinstance(actor, dict) and _is_number(actor.get("num_gpus")):
        yield Request((*path, "ray_actor_options", "num_gpus"), actor["num_gpus"])
    for index, bundle in enumerate(bundles if isinstance(bundles, list) else ()):
        if isinstance(bundle, dict) and _is_number(bundle.get("GPU")):
            yield Request((*path, "placement_group_bundles", index, "GPU"), bundle["GPU"])


def _lost(asked: Request, actor: dict[str, Any], path: Path) -> Iterator[Problem]:
    """Serve replaces a replica's options by the file's, it does not merge them; a placement group
    is another option."""
    if "num_gpus" not in actor and not asked.in_group:
        message = f"would take the replica's GPU away: add `num_gpus: {asked.num_gpus:g}` (or 0)"
        yield Problem(path, message)


def _unmet(request: Request, largest: Node | None) -> Iterator[Problem]:
    if request.num_gpus > 1 and request.num_gpus % 1:
        yield Problem(request.path, "more than one GPU must be a whole number of them")
    shape = Shape(({"GPU": request.num_gpus},), ({},))
    if largest and (why := objection(shape, _nodes(largest))):
        hint = "--gpus-per-node N if another will have more"
        yield Problem(request.path, f"{why}, {largest.source} ({hint})")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
