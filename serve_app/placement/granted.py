"""What Ray gave this replica, told to its backend, which knows nothing of Ray.

An operator's `ray_actor_options` win over the args, so what was asked for is not what counts.
"""

from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from deployments.config import BackendConfig
from deployments.exchange import Backend


def granted(config: BackendConfig) -> BackendConfig:
    """The configuration with the part of a GPU that this replica has, if it shares one."""
    has = ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)
    return config.model_copy(update={"num_gpus": has}) if 0 < has < 1 else config


def join_group(backend: Backend) -> None:
    """Has a backend whose shards may be on several nodes start them in this replica's placement
    group; without a group, or for another backend, nothing."""
    group = get_current_placement_group()
    if group is not None and hasattr(backend, "engine_config"):
        backend.engine_config = lambda engine_args: engine_config(group, engine_args)


def engine_config(group: PlacementGroup, engine_args: Any) -> Any:
    """vLLM's configuration, made where there is a GPU: the replica itself has none, and vLLM looks
    at the GPU to choose types and kernels."""
    first = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    once = {"num_cpus": 0, "num_gpus": 1, "max_calls": 1, "scheduling_strategy": first}
    task = ray.remote(**once)(_create_engine_config)  # its process ends, and lets the GPU go
    config = ray.get(task.remote(engine_args))
    config.parallel_config.placement_group = group
    return config


def _create_engine_config(engine_args: Any) -> Any:
    return engine_args.create_engine_config()
