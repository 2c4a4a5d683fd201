"""What a replica may know of itself from Serve."""

from ray import serve

POLICY = "serve_app.autoscaling:LoadPolicy"


def own_application() -> str:
    """The name of the application that this replica belongs to."""
    return str(serve.get_replica_context().app_name)


def own_replica() -> str:
    """The id of this replica, which no other has."""
    return str(serve.get_replica_context().replica_id.unique_id)


def own_limit() -> int | None:
    """How many requests this replica may have at a time that Serve does not count; None if it must
    count them all: it scales the model by a policy that is not ours, or does not say by which.

    Serve keeps this in a field that it does not document.
    """
    config = getattr(serve.get_replica_context(), "_deployment_config", None)
    limit = getattr(config, "max_ongoing_requests", None)
    scaling = getattr(config, "autoscaling_config", None)
    if scaling is not None and getattr(scaling.policy, "policy_function", None) != POLICY:
        return None
    return limit if isinstance(limit, int) else None
