"""The policy's decisions, recorded over a simulated clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Event
from typing import Any

import pytest
from ray.serve.config import AutoscalingConfig

from deployments.load import Load
from serve_app.app import model, router_deployment
from serve_app.autoscaling import Demand, LoadPolicy, RouterPolicy
from serve_app.config import RouterArgs
from serve_app.loop_use import LoopUse
from serve_app.placement.node import Node

TICK_S = 5
DOWN_S = 300.0
CAPACITY = 32  # sequences that a replica works on at a time


@dataclass
class Context:
    """What Serve gives a policy."""

    current_num_replicas: int
    total_num_requests: float
    aggregated_metrics: dict[str, dict[str, float]]
    policy_state: dict[str, Any]
    current_time: float
    target_num_replicas: int = 0
    config: AutoscalingConfig = field(
        default_factory=lambda: AutoscalingConfig(max_replicas=16, target_ongoing_requests=CAPACITY)
    )


def decisions(load: Callable[[float], float], duration_s: int, replicas: int = 1) -> list[int]:
    """The number of replicas at each tick, with `load(t)` requests in hand at second t, each a
    sequence of an engine that works on CAPACITY at a time. A new replica runs at the next tick."""
    policy, state, found = LoadPolicy(downscale_delay_s=DOWN_S), dict[str, Any](), list[int]()
    for second in range(0, duration_s, TICK_S):
        requests = load(second)
        running = min(requests, CAPACITY * replicas)
        stats = {
            "num_running": {"r": running},
            "num_waiting": {"r": requests - running},
            "kv_use": {"r": 0.5 * running / CAPACITY},
        }
        context = Context(replicas, requests, stats, state, float(second))
        wanted, state = policy(context)
        replicas = max(1, min(16, wanted))
        found.append(replicas)
    return found


def changes(found: list[int]) -> list[int]:
    """Each number that was changed to."""
    return [b for a, b in pairwise(found) if a != b]


@pytest.mark.parametrize("period_s", [20, 60, 200, 500])
def test_a_square_wave_does_not_flap(period_s: int) -> None:
    """Under load that comes and goes faster than `downscale_delay_s`, replicas are added once and
    stay."""
    found = decisions(lambda t: 8 * CAPACITY if (t // (period_s // 2)) % 2 == 0 else 4, 3600)
    assert found[-1] == 8
    assert changes(found) == [4, 8]


def test_up_at_once() -> None:
    """Each decision doubles what runs until there is enough: eight times the load in three."""
    assert decisions(lambda t: 8 * CAPACITY if t else 4, 30)[:5] == [1, 2, 4, 8, 8]


def test_down_slowly() -> None:
    """When load ends its replicas stay for `downscale_delay_s`, and then go to what is left."""
    found = decisions(lambda t: 8 * CAPACITY if t < 100 else CAPACITY, 600)
    ends = found.index(8) * TICK_S
    fell = next(i for i, n in enumerate(found) if i * TICK_S > ends and n < 8) * TICK_S
    assert 95 + DOWN_S <= fell <= 100 + DOWN_S
    assert found[-1] == 1


def test_a_slow_ebb_is_followed_once_per_step() -> None:
    """Load that falls for an hour is followed down without one step up."""
    found = decisions(lambda t: 8 * CAPACITY * (1 - t / 3600), 4000, replicas=8)
    assert changes(found) == sorted(changes(found), reverse=True)
    assert found[-1] == 1


@pytest.mark.parametrize(
    ("demand", "wanted"),
    [
        (Demand(2, num_requests=64), 2.0),  # as many as they should have
        (Demand(2, num_requests=0), 0.0),
        (Demand(2, num_requests=10, kv_use=1.6), 2.0),  # long answers: memory, not number
        (Demand(2, num_requests=10, kv_use=2.0), 2.5),
        # Each works on eight at a time and as many wait: twice the replicas.
        (Demand(2, num_requests=32, num_running=16, num_waiting=16, kv_use=1.0), 4.0),
        (Demand(2, num_requests=32, num_running=16, num_waiting=1), 1.0),  # one is just passing
        (Demand(2, num_requests=3200), 4.0),  # at most twice what runs, in one decision
        (Demand(0, num_requests=3200), 1.0),
    ],
)
def test_what_is_wanted(demand: Demand, wanted: float) -> None:
    """The larger of what requests, KV memory and the engines' queues ask for."""
    assert demand.replicas(target_requests=32, target_kv_use=0.8) == pytest.approx(wanted)


def test_requests_by_wire_count_as_serve_s_own() -> None:
    """Serve does not see them: replicas say how many they are, those that wait for one included."""
    stats = {"num_uncounted": {"a": 1.5 * CAPACITY, "b": 0.5 * CAPACITY}}
    assert LoadPolicy()(Context(2, CAPACITY, stats, {}, 0.0))[0] == 3


def test_idle_is_none_at_once() -> None:
    """With nothing in hand the last replica is not wanted: Serve's `downscale_to_zero_delay_s`
    says how long that must be so."""
    policy = LoadPolicy(downscale_delay_s=DOWN_S)
    wanted, state = policy(Context(1, 3, {}, {}, 0.0))
    assert wanted == 1
    assert policy(Context(1, 0, {}, state, 1.0))[0] == 0


def test_its_state_stays_small() -> None:
    """What the policy remembers is bounded by the number of replicas, however long it runs."""
    policy, state = LoadPolicy(downscale_delay_s=1e9), dict[str, Any]()
    for second in range(2000):
        _, state = policy(Context(16, second * 7919 % 512, {}, state, float(second)))
    assert sum(map(len, state.values())) <= 17


def test_a_replica_s_load_is_as_serve_takes_it() -> None:
    """Serve takes a flat mapping of names to numbers."""
    stats = Load(3, 2, 0.5).as_stats()
    assert stats == {"num_running": 3.0, "num_waiting": 2.0, "kv_use": 0.5}


@pytest.mark.parametrize(
    ("args", "target"),
    [
        ({"backend": "echo"}, 128),
        ({"backend": "vllm", "checkpoint": "/m", "num_gpus": 1}, 64),
        ({"backend": "huggingface", "checkpoint": "/m", "num_gpus": 1}, 32),
        ({"backend": "api", "models": {"m": {"upstream_model": "m"}}}, 128),
    ],
)
def test_defaults_are_the_backend_s(args: dict[str, Any], target: float) -> None:
    """`autoscaling: {max_replicas: 4}` is enough: the rest is what suits the backend."""
    asked = {"min_replicas": 0, "max_replicas": 4}
    scaling = model({**args, "autoscaling": asked})._bound_deployment._deployment_config
    config = scaling.autoscaling_config
    assert (config.min_replicas, config.max_replicas) == (0, 4)
    assert config.target_ongoing_requests == target
    assert (config.upscale_delay_s, config.downscale_to_zero_delay_s) == (2, 600)
    policy = config.policy.get_policy()(**config.policy.policy_kwargs)
    assert policy(Context(2, 8 * target, {}, {}, 0.0, config=config))[0] == 4
    plain = model(args)._bound_deployment._deployment_config
    assert plain.autoscaling_config is None


ROUTER_TARGET = 0.6
REQUEST_CPU_S = 0.004  # of a router, for a stream of 64 tokens: benchmarks/RESULTS.md


def router_decisions(rate_per_s: Callable[[float], float], duration_s: int) -> list[int]:
    """The number of routers at each tick, with so many streams arriving per second at second t:
    each router's loop is busy for what its part of them costs, all of one CPU at most."""
    policy, state, found = RouterPolicy(ROUTER_TARGET, DOWN_S), dict[str, Any](), list[int]()
    replicas = 1
    for second in range(0, duration_s, TICK_S):
        each = min(1.0, rate_per_s(second) * REQUEST_CPU_S / replicas)
        stats = {"cpu_use": {f"r{i}": each for i in range(replicas)}}
        context = Context(replicas, 20, stats, state, float(second))
        wanted, state = policy(context)
        replicas = max(1, min(16, wanted))
        found.append(replicas)
    return found


def test_routers_are_as_many_as_their_cpu_asks_for() -> None:
    """Six CPUs' worth of streams has ten routers at 0.6 of a CPU each, in four decisions, though
    those that are too few can show no more than one CPU in use each; it stays so."""
    rate = 6 / REQUEST_CPU_S
    assert router_decisions(lambda t: rate if t else 1, 60)[:7] == [1, 2, 4, 7, 10, 10, 10]


def test_routers_do_not_flap() -> None:
    """Load in waves adds routers once, and they go when the last wave is over for so long."""
    found = router_decisions(lambda t: 600 if t < 1000 and (t // 60) % 2 == 0 else 10, 2000)
    assert (found[0], changes(found)) == (2, [4, 1])


def test_many_idle_streams_are_a_load_too() -> None:
    """Requests that cost next to no CPU are spread by their number; and with nothing to do there is
    one router, never none."""
    policy = RouterPolicy()
    busy = Context(2, 3 * CAPACITY, {"cpu_use": {"a": 0.01, "b": 0.01}}, {}, 0.0)
    assert policy(busy)[0] == 3
    assert policy(Context(1, 0, {}, {}, 0.0))[0] == 1


def node(num_cpus: float) -> Node:
    return Node("n", {"CPU": num_cpus})


@pytest.mark.parametrize(
    ("autoscaling", "num_cpus", "replicas"),
    [
        (None, 64, None),
        ({}, 2, None),
        ({}, 7, None),
        ({}, 8, (1, 2)),
        ({}, 1000, (1, 16)),
        ({"min_replicas": 3}, 2, (3, 3)),
        ({"max_replicas": 4}, 2, (1, 4)),
        ({"max_replicas": 1}, 64, None),
    ],
)
def test_how_many_routers_there_may_be(
    autoscaling: dict[str, Any] | None, num_cpus: float, replicas: tuple[int, int] | None
) -> None:
    """`autoscaling: {}` in the router's args scales by our policy, up to one router for four CPUs;
    where that is one, or nothing is asked for, `deployments:` counts."""
    args = RouterArgs.model_validate({"autoscaling": autoscaling})
    config = router_deployment(args, [node(num_cpus)])._deployment_config.autoscaling_config
    assert (config and (config.min_replicas, config.max_replicas)) == replicas
    if config is not None:
        assert config.target_ongoing_requests == 1000
        policy = config.policy.get_policy()(**config.policy.policy_kwargs)
        assert policy(Context(2, 1, {"cpu_use": {"a": 0.9, "b": 0.6}}, {}, 0.0))[0] == 3


def test_how_busy_a_loop_is() -> None:
    """What a thread has worked since the last time is seen, and what it has slept is not."""
    use = LoopUse()
    ends = time.thread_time() + 0.05
    while time.thread_time() < ends:
        pass
    assert use.since_last() > 0
    Event().wait(0.05)
    assert use.since_last() < 0.5
