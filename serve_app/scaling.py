"""The autoscaling that Serve is asked for, in its own terms. How many replicas there should be is
for the policies to say, in `autoscaling`."""

from collections.abc import Sequence
from typing import Any

from deployments.config import BackendConfig, ReplicaRange
from serve_app.config import RouterAutoscaling
from serve_app.own_replica import POLICY
from serve_app.placement.node import Node

ROUTER_POLICY = "serve_app.autoscaling:RouterPolicy"
LOOK_BACK_S = 12.0  # Serve hears of a load every 10 s
CPUS_PER_ROUTER, MAX_ROUTERS = 4, 16  # the others are for replicas and HAProxy


def of_model(config: BackendConfig) -> dict[str, Any]:
    """Serve's autoscaling for what `autoscaling` in the args asks for, by our policy; without it
    nothing, so that `num_replicas` and `autoscaling_config` under `deployments:` count."""
    asked = config.autoscaling
    if asked is None:
        return {}
    own = {
        "max_replicas": asked.max_replicas,
        "initial_replicas": asked.initial_replicas,
        "target_ongoing_requests": asked.target_ongoing_requests or _target(config),
        "downscale_to_zero_delay_s": asked.downscale_to_zero_delay_s,
    }
    return _scaled(asked, own, POLICY, target_kv_use=asked.target_kv_use)


def _target(config: BackendConfig) -> float:
    """The backend's default, but so that there are more replicas before requests are refused."""
    return min(config.default_target_requests, config.max_ongoing_requests / 2)


def of_router(asked: RouterAutoscaling | None, nodes: Sequence[Node]) -> dict[str, Any]:
    """Nothing where there is no choice, so that `deployments:` counts."""
    if asked is None:
        return {}
    num_cpus = sum(node.num_cpus for node in nodes)
    most = asked.max_replicas or max(
        asked.min_replicas, int(min(MAX_ROUTERS, num_cpus / CPUS_PER_ROUTER))
    )
    if most == 1:
        return {}
    own = {"max_replicas": most, "target_ongoing_requests": asked.target_ongoing_requests}
    return _scaled(asked, own, ROUTER_POLICY, target_cpu_use=asked.target_cpu_use)


def _scaled(
    asked: ReplicaRange, own: dict[str, Any], policy: str, **targets: float
) -> dict[str, Any]:
    """What both have in common, and what is one's own."""
    kwargs = {**targets, "downscale_delay_s": asked.downscale_delay_s}
    scaling = {
        **own,
        "min_replicas": asked.min_replicas,
        "look_back_period_s": LOOK_BACK_S,
        "upscale_delay_s": asked.upscale_delay_s,
        "downscale_delay_s": 0,  # the policy has its own
        "policy": {"policy_function": policy, "policy_kwargs": kwargs},
    }
    return {"autoscaling_config": scaling}
