"""The catalogue: what a `model_type` means. Data is in catalog.yaml; this reads and applies it."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from deployments.config import Config

CATALOG = Path(__file__).with_name("catalog.yaml")
PACKAGE_PREFIX = "package:"


class Entry(Config):
    """One model: the backend that serves it best, its settings, and what a backend adds to them."""

    description: str
    backend: str
    settings: dict[str, Any]
    backends: dict[str, dict[str, Any]] = Field(default_factory=dict)


@cache
def entries() -> Mapping[str, Entry]:
    """Every entry by `model_type`."""
    raw = yaml.safe_load(CATALOG.read_text(encoding="utf-8"))
    return {name: Entry.model_validate(entry) for name, entry in raw.items()}


def with_defaults(args: Mapping[str, Any]) -> dict[str, Any]:
    """`args` laid over what the catalogue says of its `model_type`.

    Raises: ValueError for a `model_type` that is not there and has no `checkpoint` of its own.
    """
    name = args.get("model_type")
    if name is None or (name not in entries() and "checkpoint" in args):
        return dict(args)
    if name not in entries():
        raise ValueError(
            f"model_type: {name!r} is not in the catalogue ({', '.join(entries())}); "
            "a model that is not needs a `checkpoint:`"
        )
    entry = entries()[str(name)]
    backend = str(args.get("backend", entry.backend))
    return {"backend": backend, **entry.settings, **entry.backends.get(backend, {}), **args}


def checkpoint_path(checkpoint: str) -> str:
    """Where a checkpoint is: a folder of this distribution or of the operator, or a hub id."""
    if checkpoint.startswith(PACKAGE_PREFIX):
        root = Path(__file__).resolve().parent.parent
        return str(root / checkpoint.removeprefix(PACKAGE_PREFIX))
    return str(Path(checkpoint).expanduser()) if checkpoint.startswith("~") else checkpoint
