"""Names and routes: each taken once, each where it belongs, and exactly one router."""

import re
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
    """A route for a model, none for the router, a malformed one, or one for two applications."""
    taken: list[tuple[object, Path]] = []
    for app in inventory.applications:
        path, route = (*app.path, "route_prefix"), app.raw.get("route_prefix", "/")
        if message := _wrong_route(app.role, route):
            yield Problem(path, message)
        else:
            taken.append((route, path))
    yield from _taken_twice(taken)


def _wrong_route(role: Role, route: object) -> str | None:
    if role is Role.MODEL and route is not None:
        return "should be null, without quotes: models are reached through the router"
    if role is Role.ROUTER and route is None:
        return "the router takes HTTP: give it a route, such as /"
    # Serve says so only when the application is being built.
    if isinstance(route, str) and not re.fullmatch(r"/|(/[^/{}]+)+", route):
        return "a route begins with /, does not end with it, and has no { or }"
    return None


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
    """Options for a deployment that the application does not have, or options given twice."""
    for app in inventory.applications:
        named = ((options.get("name"), (*path, "name")) for path, options in app.deployments())
        yield from _taken_twice(named)
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
