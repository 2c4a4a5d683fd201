"""The models as clients and as operators see them."""

from typing import Any

from serve_app.directory import Application, Directory


def model_object(model: str, application: Application) -> dict[str, Any]:
    """OpenAI's model object, with the backend's kind and state beside it."""
    return {
        "id": model,
        "object": "model",
        "created": int(application.version or application.since_s),
        "owned_by": "roundhouse",
        "backend": application.backend,
        "state": application.state,
    }


def model_list(directory: Directory) -> dict[str, Any]:
    """The answer to GET /v1/models."""
    models = sorted(directory.models.items())
    return {"object": "list", "data": [model_object(m, a) for m, a in models]}


def operator_list(directory: Directory) -> dict[str, Any]:
    """The answer to GET /-/models: every application, with its replicas and why it failed."""
    return {
        "ready": directory.ready,
        "applications": [_row(a, directory) for a in directory.applications],
    }


def _row(application: Application, directory: Directory) -> dict[str, Any]:
    served = [m for m, a in directory.models.items() if a.name == application.name]
    return {
        "application": application.name,
        "models": sorted(served),
        "backend": application.backend,
        "state": application.state,
        "since": round(application.since_s, 3),
        "replicas": dict(application.replicas),
        "reason": application.reason,
    }
