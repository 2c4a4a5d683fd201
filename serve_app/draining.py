"""How long a replica that has to go may finish what it has begun, and who comes before it goes.

Three clocks that must run out in this order: a request's own (`request_timeout_s` of the router),
the replica's (Serve's `graceful_shutdown_timeout_s`), and that of the HAProxy before the router,
which hands over to a new one at every change of the routers and then cuts what the old one still
carries. `check` holds a file against it.
"""

from typing import Any

from deployments.config import BackendConfig, CheckpointConfig

DRAIN_S = 620.0  # as long as the router lets a request take by default, and a little
HARD_STOP = "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"
SERVES_HARD_STOP_S = 120.0  # Serve's own default

# A replica that has died is missed, and replaced, this soon: Serve would look every 10 s.
HEALTH_CHECK_PERIOD_S = 2.0

COMMON: dict[str, Any] = {
    "graceful_shutdown_timeout_s": DRAIN_S,
    "health_check_period_s": HEALTH_CHECK_PERIOD_S,
}
BESIDE: dict[str, Any] = {"max_surge_percent": 100}


def router_options() -> dict[str, Any]:
    """A new version of the router answers before an old one goes."""
    return {**COMMON, **BESIDE}


def model_options(config: BackendConfig) -> dict[str, Any]:
    """The same for a model without weights. One with weights would need the room for both, and
    Serve would wait for it without end: its old version goes first, and requests are held."""
    beside = {} if isinstance(config, CheckpointConfig) else BESIDE
    return {**COMMON, **beside}
