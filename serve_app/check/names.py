"""Names and routes: each taken once, each where it belongs, and exactly one router."""

from collections.abc import Iterable, Iterator

from pydantic import TypeAdapter, ValidationError

from deployments.config import ModelId
from serve_app.check.args import backend_of
from serve_app.check.inventory import Application, Inventory, Role
from serve_app.check.problem import Path, Problem, nearest, spell

MODEL_ID: TypeAdapter[str] = TypeAdapter(ModelId)
ROUTER_DEPLOYMENT = "Router"


def applications(inventory: Inventory) -> Iterator[Problem]:
    """Two applications of one name."""
    named = ((app.name, (*app.path, "name")) for app in inventory.applications)
    yield from _taken_twice(named)


def routes(inventory: Inventory) -> Iterator[Problem]:
    """A route for a model, none for the router, or one route for two applications."""
    taken: list[tuple[object, Path]] = []
    for app in inventory.applications:
        path, route = (*app.path, "route_prefix"), app.raw.get("route_prefix", "/")
        if app.role is Role.MODEL:
            if route is not None:
                message = "should be null, without quotes: models are reached through the router"
                yield Problem(path, message)
        elif route is not None:
            taken.append((route, path))
        elif app.role is Role.ROUTER:
            yield Problem(path, "the router takes HTTP: give it a route, such as /")
    yield from _taken_twice(taken)


def models(inventory: Inventory) -> Iterator[Problem]:
    """Two places that serve one model id, or an id that no client could send."""
    served = [model for app in inventory.of(Role.MODEL) for model in app.models()]
    yield from _taken_twice(served)
    for model, path in served:
        try:
            MODEL_ID.validate_python(model)
        except ValidationError:
            if path[-1] == "name":  # those of an API are checked with its args
                yield Problem(path, "a model id is letters, digits and ._:/@-, at most 200")


def router(inventory: Inventory) -> Iterator[Problem]:
    """No router, or a second one."""
    routers = inventory.of(Role.ROUTER)
    if not routers:
        message = "no application is the router (import_path: serve_app.app:router)"
        yield Problem(("applications",), message)
    for other in routers[1:]:
        message = f"a second router; {spell(routers[0].path)} is one already"
        yield Problem((*other.path, "import_path"), message)


def deployments(inventory: Inventory) -> Iterator[Problem]:
    """Options for a deployment that the application does not have."""
    for app in inventory.applications:
        known = _deployment_name(app)
        for path, options in app.deployments():
            name = options.get("name")
            if known and isinstance(name, str) and name != known:
                yield Problem((*path, "name"), f"no such deployment{nearest(name, [known])}")


def _deployment_name(app: Application) -> str | None:
    if app.role is Role.ROUTER:
        return ROUTER_DEPLOYMENT
    return backend_of(app) if app.role is Role.MODEL else None


def _taken_twice(taken: Iterable[tuple[object, Path]]) -> Iterator[Problem]:
    first: dict[str, Path] = {}
    for name, path in taken:
        if isinstance(name, str):
            if name in first:
                yield Problem(path, f"`{name}` is taken already, by {spell(first[name])}")
            first.setdefault(name, path)
