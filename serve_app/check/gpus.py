"""GPU requests that no node could meet, or that an override takes away. Looks for no free GPUs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.config import CheckpointConfig, VLLMConfig
from serve_app.check.args import configured
from serve_app.check.inventory import Application, Inventory
from serve_app.check.nodes import Node
from serve_app.check.problem import Path, Problem


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
        for path, options in application.deployments():
            actor = options.get("ray_actor_options")
            if isinstance(actor, dict) and asked:
                overridden = True
                yield from _lost(asked, actor, (*path, "ray_actor_options"))
            for request in _by_options(options, path):
                yield from _unmet(request, largest)
        if asked and not overridden:
            yield from _unmet(asked, largest)


def _by_args(application: Application, largest: Node | None) -> Request | None:
    """What the builder will ask of Serve; None where it asks for no GPU."""
    config, path = configured(application), (*application.path, "args")
    if not isinstance(config, CheckpointConfig):
        return None
    if config.spans_nodes:  # by shards of one GPU each, wherever they are
        return Request((*path, "pipeline_parallel_size"), 1, in_group=True)
    if config.num_gpus is not None:
        return Request((*path, "num_gpus"), config.num_gpus) if config.num_gpus else None
    if isinstance(config, VLLMConfig) and config.tensor_parallel_size > 1:
        return Request((*path, "tensor_parallel_size"), config.tensor_parallel_size)
    return Request(path, 1) if largest and largest.num_gpus >= 1 else None


def _by_options(options: Mapping[str, Any], path: Path) -> Iterator[Request]:
    actor, bundles = options.get("ray_actor_options"), options.get("placement_group_bundles")
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
    if largest and request.num_gpus > largest.num_gpus:
        message = f"asks one node for {request.num_gpus:g} GPUs; the largest has "
        hint = (
            f"{largest.num_gpus:g}, {largest.source} (--gpus-per-node N if another will have more)"
        )
        yield Problem(request.path, message + hint)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
