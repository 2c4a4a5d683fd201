"""The models as clients and as operators see them."""

from typing import Any

from deployments.progress import Progress
from serve_app.admission import Admission
from serve_app.directory import Application, Directory
from serve_app.warming import Warming


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


async def operator_list(
    directory: Directory, warming: Warming, admission: Admission
) -> dict[str, Any]:
    """The answer to GET /-/models: every application, with its replicas, how far those are that
    are being loaded, what it has in hand for this router and how much it may, who waits for it and
    for how long, and why it failed."""
    loading = await directory.loading()
    served: dict[str, list[str]] = {}
    for model, application in directory.models.items():
        served.setdefault(application.name, []).append(model)
    return {
        "ready": directory.ready,
        "applications": [
            {
                **_row(a, served.get(a.name, [])),
                "ongoing": admission.ongoing(a.name),
                "held": warming.held(a.name),
                "expected_s": await warming.expected_s(a),
                "loading": [_loading(p) for p in loading.get(a.name, ())],
            }
            for a in directory.applications
        ],
    }


def _loading(progress: Progress) -> dict[str, Any]:
    """One replica that is being loaded."""
    return {
        "stage": progress.stage,
        "percent": progress.percent,
        "bytes": progress.done_bytes,
        "total_bytes": progress.total_bytes,
        "shards": [
            {"file": shard.file, "bytes": shard.done_bytes, "total_bytes": shard.total_bytes}
            for shard in progress.shards
        ],
    }


def _row(application: Application, served: list[str]) -> dict[str, Any]:
    return {
        "application": application.name,
        "models": sorted(served),
        "backend": application.backend,
        "state": application.state,
        "since": round(application.since_s, 3),
        "replicas": dict(application.replicas),
        "room": application.room,
        "reason": application.reason,
    }
