"""An autoscaling policy of an operator's own, as a serve_config names it."""

from typing import Any


def three(context: Any) -> tuple[int, dict[str, Any]]:
    """Three replicas, whatever the load."""
    return 3, {}
