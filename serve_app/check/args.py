"""Every application's `args` against the settings they stand for. Starts and imports no backend."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from deployments import catalog
from deployments.backends import BACKENDS, configure
from deployments.config import BackendConfig
from serve_app.check import refusal
from serve_app.check.inventory import Application, Inventory, Role
from serve_app.check.problem import Path, Problem, nearest
from serve_app.config import RouterArgs


def check(inventory: Inventory) -> Iterator[Problem]:
    """Args that their builder would refuse."""
    for application in inventory.of(Role.ROUTER):
        yield from refused(RouterArgs, application.args, (*application.path, "args"))
    for application in inventory.of(Role.MODEL):
        found = configured(application)
        if not isinstance(found, BackendConfig):
            yield from found


def refused(model: type[BaseModel], value: object, path: Path) -> Iterator[Problem]:
    """What `model` does not take of `value`."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        yield from refusal.problems(error, model, value, path)


def configured(application: Application) -> BackendConfig | list[Problem]:
    """The settings that a model application's args make, or what is wrong with them."""
    args, path = application.args, (*application.path, "args")
    unknown = [*_model_type(args, path), *_backend(args, path)]
    backend = backend_of(application) or _meant(args.get("backend"))
    if backend is None:
        return unknown
    try:
        config = configure(_apart_from_names(args, backend) if unknown else args)
    except ValidationError as error:
        return [*unknown, *refusal.problems(error, BACKENDS[backend].config, args, path)]
    except catalog.Unservable as error:
        return [*unknown, Problem((*path, error.key), error.message)]
    return unknown or config


def backend_of(application: Application) -> str | None:
    """The backend of a model application, its deployment's name; None if it names none."""
    args = application.args
    entry = _entry(args)
    name = entry.backend if entry and "backend" not in args else args.get("backend")
    return name if isinstance(name, str) and name in BACKENDS else None


def _model_type(args: dict[str, Any], path: Path) -> Iterator[Problem]:
    name, backend = args.get("model_type"), args.get("backend")
    entry = _entry(args)
    if entry is None:
        if name is not None and ("checkpoint" not in args or not isinstance(name, str)):
            message = "not in the catalogue, and no `checkpoint:` says where it is"
            yield Problem((*path, "model_type"), message + nearest(name, catalog.entries()))
    elif isinstance(backend, str) and backend in BACKENDS:
        settings = {*entry.settings, *entry.backends.get(backend, {})}
        if alien := sorted(settings - set(BACKENDS[backend].config.model_fields)):
            message = f"not for backend `{backend}`: the catalogue sets `{alien[0]}` for it"
            yield Problem((*path, "model_type"), message)


def _backend(args: dict[str, Any], path: Path) -> Iterator[Problem]:
    name = args.get("backend")
    if "backend" not in args:
        if _entry(args) is None:
            yield Problem(path, f"`backend` is missing{nearest('', BACKENDS)}")
    elif not isinstance(name, str) or name not in BACKENDS:
        yield Problem((*path, "backend"), f"unknown backend{nearest(name, BACKENDS)}")


def _entry(args: dict[str, Any]) -> catalog.Entry | None:
    name = args.get("model_type")
    return catalog.entries().get(name) if isinstance(name, str) else None


def _meant(backend: object) -> str | None:
    close = get_close_matches(str(backend), BACKENDS, n=1)
    return close[0] if close else None


def _apart_from_names(args: dict[str, Any], backend: str) -> dict[str, Any]:
    """Args whose other mistakes can be found although `model_type` or `backend` is one."""
    of_catalogue = {"model_type", catalog.GPU_MEMORY_ARG}
    rest = {key: value for key, value in args.items() if key not in of_catalogue}
    takes_checkpoint = "checkpoint" in BACKENDS[backend].config.model_fields
    return {**({"checkpoint": "unknown"} if takes_checkpoint else {}), **rest, "backend": backend}
