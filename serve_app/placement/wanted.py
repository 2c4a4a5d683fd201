"""What a serve_config asks of a cluster: a deployment's replicas, how many, and what each takes.

The defaults are those of the builders themselves; what the file says under `deployments:` is laid
over them as Serve does, whole options at a time. Builds no application, and starts nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from ray.serve import Deployment
from ray.serve.config import AutoscalingConfig

from deployments.config import BackendConfig
from serve_app.app import model_deployment, router_deployment
from serve_app.check.args import configured
from serve_app.check.inventory import Application, Inventory, Role
from serve_app.config import RouterArgs
from serve_app.placement.node import Node
from serve_app.placement.shape import Shape
from serve_app.placement.weights import gpu_gb

PLACING = (
    "ray_actor_options",
    "placement_group_bundles",
    "placement_group_strategy",
    "placement_group_bundle_label_selector",
)
AUTO = {"min_replicas": 1, "max_replicas": 100}  # what Serve takes `num_replicas: auto` for


@dataclass(frozen=True, slots=True)
class Wanted:
    """The replicas of one application. `gpu_gb` is what each GPU must have for the weights alone,
    in 10^9 bytes, as far as that is known."""

    application: str
    deployment: str
    shape: Shape
    min_replicas: int
    max_replicas: int
    gpu_gb: float | None = None

    def suits(self, node: Node) -> bool:
        """Whether the weights fit the node's GPUs, as far as both are known."""
        return not self.gpu_gb or not node.gpu_memory_gb or self.gpu_gb <= node.gpu_memory_gb


def wanted(inventory: Inventory, nodes: Sequence[Node]) -> Iterator[Wanted]:
    """In the order of the file, as far as it can be understood: `roundhouse check` tells what
    cannot. The operator's own code is left out: what it asks for is not known before it runs."""
    for application in inventory.applications:
        if application.role is Role.ROUTER:
            yield _wanted(application, router_deployment(_router_args(application), nodes), None)
        elif application.role is Role.MODEL:
            config = configured(application)
            if isinstance(config, BackendConfig):
                yield _wanted(application, model_deployment(config, nodes), config)


def _router_args(application: Application) -> RouterArgs:
    try:
        return RouterArgs.model_validate(application.args)
    except ValidationError:
        return RouterArgs()


def _wanted(
    application: Application, deployment: Deployment, config: BackendConfig | None
) -> Wanted:
    named = [each for _, each in application.deployments() if each.get("name") == deployment.name]
    overrides: Mapping[str, Any] = named[0] if named else {}
    actor = deployment.ray_actor_options
    replica = deployment._replica_config
    options = {name: getattr(replica, name) for name in PLACING} | {"ray_actor_options": actor}
    options |= {name: overrides[name] for name in PLACING if name in overrides}
    shape = Shape.of(options)
    low, high = _replicas(deployment, overrides)
    needed = gpu_gb(config, shape) if config else None
    return Wanted(str(application.name), deployment.name, shape, low, high, needed)


def _replicas(deployment: Deployment, overrides: Mapping[str, Any]) -> tuple[int, int]:
    """The least and the most of them: Serve's own reading of the file, else the builder's."""
    number, scaling = overrides.get("num_replicas"), overrides.get("autoscaling_config")
    if number == "auto":
        scaling = {**AUTO, **(scaling or {})}
    elif isinstance(number, int):
        return number, number
    if isinstance(scaling, dict):
        try:
            asked = AutoscalingConfig.model_validate(scaling)
        except ValidationError:
            return 1, 1
        return asked.min_replicas, asked.max_replicas
    default = deployment._deployment_config
    if default.autoscaling_config is not None:
        return default.autoscaling_config.min_replicas, default.autoscaling_config.max_replicas
    return default.num_replicas or 1, default.num_replicas or 1
