"""What Ray gave this replica, told to its backend, which knows nothing of Ray.

An operator's `ray_actor_options` win over the args, so what was asked for is not what counts.
"""

from collections.abc import Mapping
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from deployments.config import BackendConfig, HuggingFaceConfig
from deployments.exchange import Backend


def granted(config: BackendConfig) -> BackendConfig:
    """The configuration with what this replica has."""
    return within(config, ray.get_runtime_context().get_assigned_resources())


def within(config: BackendConfig, has: Mapping[str, float]) -> BackendConfig:
    """The configuration with the part of a GPU that a replica has, if it shares one, and, for a
    model that may stream without a GPU, with the RAM that Ray has promised it, if any."""
    gpus, ram = has.get("GPU", 0.0), has.get("memory", 0.0)
    if 0 < gpus < 1:
        config = config.model_copy(update={"num_gpus": gpus})
    memory = config.memory if isinstance(config, HuggingFaceConfig) else None
    if memory is None or memory.cpu is not None or gpus or not ram:
        return config
    return config.model_copy(update={"memory": memory.model_copy(update={"cpu": int(ram)})})


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
