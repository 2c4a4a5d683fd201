"""How many replicas a model should have, from what loads it: `LoadPolicy`, for Serve's
`autoscaling_config: {policy: {policy_function: serve_app.autoscaling:LoadPolicy}}`; and how many
the router: `RouterPolicy`.

Up at once, down slowly. A policy is a pure function of what Serve tells it, its clock included; it
keeps what it must remember in the state that Serve hands back to it. Serve copies this module to
its controller, so it stands alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

MAX_GROWTH = 2.0  # of what runs, in one decision: what is starting will change the picture
PEAKS = "roundhouse_peaks"


class Context(Protocol):
    """What a policy reads of `ray.serve.config.AutoscalingContext`."""

    current_num_replicas: int
    target_num_replicas: int
    total_num_requests: float
    aggregated_metrics: Mapping[str, Mapping[Any, float]] | None
    policy_state: Mapping[str, Any]
    current_time: float | None
    config: Any


@dataclass(frozen=True, slots=True)
class Demand:
    """What all replicas of a model together have in hand, averaged over the look-back period.

    `num_requests` are those that Serve counts and those that came past it by wire, in both cases
    with those that wait for a replica; the rest is what engines say of themselves: sequences, and
    the sum of their shares of KV memory.
    """

    num_replicas: int
    num_requests: float
    num_running: float = 0.0
    num_waiting: float = 0.0
    kv_use: float = 0.0

    def replicas(self, target_requests: float, target_kv_use: float) -> float:
        """How many replicas would be loaded as they should be: by requests, by KV memory, and, if
        engines have queues, by how much their replicas were seen to work on at a time."""
        by_requests = self.num_requests / target_requests
        by_kv = self.kv_use / target_kv_use
        by_queue = 0.0
        if self.num_waiting >= self.num_replicas and self.num_running > 0:
            by_queue = self.num_replicas * (1 + self.num_waiting / self.num_running)
        wanted = max(by_requests, by_kv, by_queue)
        return min(wanted, max(1.0, self.num_replicas * MAX_GROWTH))


class LoadPolicy:
    """Follows the demand up at once, and down to the highest that it was in the last
    `downscale_delay_s`: a dip changes nothing. From one replica to none is Serve's own
    `downscale_to_zero_delay_s`."""

    def __init__(self, target_kv_use: float = 0.8, downscale_delay_s: float = 300.0) -> None:
        self._target_kv_use = target_kv_use
        self._downscale_delay_s = downscale_delay_s

    def replicas(self, context: Context) -> float:
        """How many there should be by what there is to do now."""
        target_requests = context.config.get_target_ongoing_requests()
        return demand_from_context(context).replicas(target_requests, self._target_kv_use)

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """The number of replicas, and the state to hand back next time."""
        now = context.current_time or 0.0
        wanted = math.ceil(round(self.replicas(context), 6))
        peaks = _with_peak(
            context.policy_state.get(PEAKS, ()), now, wanted, self._downscale_delay_s
        )
        highest = int(peaks[0][1])
        return (wanted if highest <= 1 else highest), {PEAKS: peaks}


class RouterPolicy(LoadPolicy):
    """The same for the router, by what its replicas can do: as many as would use `target_cpu_use`
    of the one CPU that each has for what all of them together used; more if so many requests are
    under way that each would have more than its target of those."""

    def __init__(self, target_cpu_use: float = 0.6, downscale_delay_s: float = 300.0) -> None:
        super().__init__(downscale_delay_s=downscale_delay_s)
        self._target_cpu_use = target_cpu_use

    def replicas(self, context: Context) -> float:
        used = (context.aggregated_metrics or {}).get("cpu_use", {})
        by_cpu = sum(used.values()) / self._target_cpu_use
        target_requests = float(context.config.get_target_ongoing_requests())
        by_requests = context.total_num_requests / target_requests
        most = max(1.0, context.current_num_replicas * MAX_GROWTH)
        return min(most, max(1.0, by_cpu, by_requests))


def demand_from_context(context: Context) -> Demand:
    """The sums over the replicas of what Serve was told."""
    stats = context.aggregated_metrics or {}
    totals = {name: sum(by_replica.values()) for name, by_replica in stats.items()}
    return Demand(
        context.current_num_replicas,
        context.total_num_requests + totals.get("num_uncounted", 0.0),
        *(totals.get(name, 0.0) for name in ("num_running", "num_waiting", "kv_use")),
    )


def _with_peak(
    peaks: list[tuple[float, int]], now: float, wanted: int, window_s: float
) -> list[tuple[float, int]]:
    """What may still be the highest of a window, oldest first: each is higher than all after it,
    so there are at most as many as there are numbers of replicas."""
    kept = [peak for peak in peaks if peak[0] > now - window_s and peak[1] > wanted]
    return [*kept, (now, wanted)]
