"""Every metric there is: name, unit, labels and meaning. cluster/metrics.md is made of it.

Prometheus sees each name with Ray's prefix. Values of labels are bounded: applications, models and
backends that exist, codes and states of ours.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
PREFIX = "ray_"

MODEL = ("application", "model", "backend")
APPLICATION = ("application", "backend")

FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
TOKEN_S = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
REQUEST_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
START_S = (1, 2.5, 5, 10, 20, 30, 60, 90, 120, 180, 300, 600, 1200, 2400)

IF_ANY = "Only where there are any, or were in the last minute."
IF_ONCE = "Only once there has been one."


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric; `bounds` are the upper bounds of a histogram's buckets."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    meaning: str
    bounds: tuple[float, ...] = ()

    @property
    def exposed(self) -> tuple[str, ...]:
        """The names that Prometheus reads."""
        name = PREFIX + self.name
        if self.kind != "histogram":
            return (name,)
        return (f"{name}_bucket", f"{name}_sum", f"{name}_count")


REQUESTS = Metric(
    "roundhouse_requests_total",
    "counter",
    "requests",
    (*MODEL, "status"),
    "POST requests that have ended, by HTTP status. A stream that broke off counts as the error "
    "that broke it, one whose client left as 499.",
)
ERRORS = Metric(
    "roundhouse_errors_total",
    "counter",
    "requests",
    (*MODEL, "code", "fault"),
    "Requests that ended in an error, by its code in the answer (`status_NNN` where the backend "
    "itself answered with an error), and by whose fault it was: the `client`'s, the `server`'s, or "
    "a want of `capacity`.",
)
PROMPT_TOKENS = Metric(
    "roundhouse_prompt_tokens_total",
    "counter",
    "tokens",
    MODEL,
    "Tokens of prompts, as the backends counted them; of an API's stream only if its usage was "
    "asked for.",
)
COMPLETION_TOKENS = Metric(
    "roundhouse_completion_tokens_total",
    "counter",
    "tokens",
    MODEL,
    "Tokens generated, as the backends counted them; of an API's stream only if its usage was "
    "asked for.",
)
FALLBACKS = Metric(
    "roundhouse_fallbacks_total",
    "counter",
    "requests",
    (*MODEL, "answered_by", "reason"),
    "Requests that another model answered: one that was `warming` (spilled), `overloaded`, or had "
    "`failed`. The labels name the model that was asked.",
)
SHED = Metric(
    "roundhouse_shed_requests_total",
    "counter",
    "requests",
    (*MODEL, "code"),
    "Requests sent away with a time to come back, since a model was starting or its queue full.",
)
IN_FLIGHT = Metric(
    "roundhouse_in_flight_requests",
    "gauge",
    "requests",
    MODEL,
    "Requests that a router has taken and not yet answered to the end, by the model asked for.",
)
REQUEST_DURATION = Metric(
    "roundhouse_request_seconds",
    "histogram",
    "seconds",
    MODEL,
    "From a request's arrival to the last byte of its answer; good answers only.",
    REQUEST_S,
)
FIRST_TOKEN = Metric(
    "roundhouse_first_token_seconds",
    "histogram",
    "seconds",
    MODEL,
    "From a request's arrival to the first piece of its stream, the wait for a start included.",
    FIRST_TOKEN_S,
)
INTER_TOKEN = Metric(
    "roundhouse_inter_token_seconds",
    "histogram",
    "seconds",
    MODEL,
    "Between two pieces of a stream, as the router gets them: a token each, unless tokens came "
    "faster than they could be passed on.",
    TOKEN_S,
)
OUTPUT_TOKEN = Metric(
    "roundhouse_time_per_output_token_seconds",
    "histogram",
    "seconds",
    MODEL,
    "A stream's time after its first piece, divided by the tokens after the first.",
    TOKEN_S,
)
QUEUED = Metric(
    "roundhouse_queued_requests",
    "gauge",
    "requests",
    APPLICATION,
    "Requests that a router has and no replica has room for yet, `max_ongoing_requests` being "
    "reached on each. " + IF_ANY,
)
HELD = Metric(
    "roundhouse_held_requests",
    "gauge",
    "requests",
    APPLICATION,
    "Requests that a router holds until the model runs. " + IF_ANY,
)
HELD_DURATION = Metric(
    "roundhouse_held_seconds",
    "histogram",
    "seconds",
    APPLICATION,
    "How long requests were held, whatever became of them. " + IF_ONCE,
    START_S,
)
COLD_START = Metric(
    "roundhouse_cold_start_seconds",
    "histogram",
    "seconds",
    APPLICATION,
    "From a router's asking a model without replicas to start until one runs. Each router that "
    "asked counts it. " + IF_ONCE,
    START_S,
)
REPLICA_START = Metric(
    "roundhouse_replica_start_seconds",
    "histogram",
    "seconds",
    APPLICATION,
    "From a replica's process to its being ready: every start, at zero or not. Told by replicas.",
    START_S,
)
APPLICATION_STATE = Metric(
    "roundhouse_application_state",
    "gauge",
    "1 or 0",
    (*APPLICATION, "state"),
    "1 for the state that an application is in: running, warming, cold or failed; for a minute 0 "
    "for the one that it has left. Every router tells it.",
)
REPLICAS = Metric(
    "roundhouse_replicas",
    "gauge",
    "replicas",
    (*APPLICATION, "state"),
    "Replicas of an application by Serve's state: running, starting, stopping and others. Every "
    "router tells it. " + IF_ANY,
)
READY = Metric(
    "roundhouse_router_ready",
    "gauge",
    "1 or 0",
    (),
    "Whether the router would answer /ready with 200.",
)
ENGINE_RUNNING = Metric(
    "roundhouse_engine_running_requests",
    "gauge",
    "requests",
    APPLICATION,
    "What a replica's engine works on. Told by replicas.",
)
ENGINE_WAITING = Metric(
    "roundhouse_engine_waiting_requests",
    "gauge",
    "requests",
    APPLICATION,
    "What waits in a replica for room in the engine. Told by replicas.",
)
KV_CACHE_USE = Metric(
    "roundhouse_kv_cache_use_ratio",
    "gauge",
    "0 to 1",
    APPLICATION,
    "The share of a replica's room for keys and values that is taken. Told by replicas.",
)

ROUTER = (
    REQUESTS,
    ERRORS,
    PROMPT_TOKENS,
    COMPLETION_TOKENS,
    FALLBACKS,
    SHED,
    IN_FLIGHT,
    REQUEST_DURATION,
    FIRST_TOKEN,
    INTER_TOKEN,
    OUTPUT_TOKEN,
    QUEUED,
    HELD,
    HELD_DURATION,
    COLD_START,
    APPLICATION_STATE,
    REPLICAS,
    READY,
)
REPLICA = (REPLICA_START, ENGINE_RUNNING, ENGINE_WAITING, KV_CACHE_USE)
ALL = (*ROUTER, *REPLICA)
