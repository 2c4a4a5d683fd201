"""What the file asks Serve to run: its applications, and the models that they serve.

Reads what has the right shape and passes over the rest in silence: `schema.py` refuses that.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from typing import Any

from deployments import catalog
from serve_app.check.problem import Path

MODULE = "serve_app.app"
HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"


class Role(Enum):
    """What an application is, by its import path. OTHER is the operator's own code."""

    ROUTER = "router"
    MODEL = "model"
    OTHER = "other"


BUILDERS = (Role.ROUTER.value, Role.MODEL.value)


@dataclass(frozen=True, slots=True)
class Application:
    """One application of the file, not yet judged."""

    path: Path
    raw: Mapping[str, Any]

    @property
    def name(self) -> object:
        return self.raw.get("name", "default")  # Serve's own name for one without

    @property
    def import_path(self) -> str:
        """As `module:attribute`, whichever of Serve's two forms the file uses."""
        path = self.raw.get("import_path")
        if not isinstance(path, str):
            return ""
        return path if ":" in path else ":".join(path.rsplit(".", 1))

    @property
    def role(self) -> Role:
        """A misspelt builder of ours still counts as the one that was meant."""
        module, _, builder = self.import_path.partition(":")
        meant = get_close_matches(builder, BUILDERS, n=1) if module == MODULE else []
        return Role(meant[0]) if meant else Role.OTHER

    @property
    def args(self) -> dict[str, Any]:
        args = self.raw.get("args")
        return args if isinstance(args, dict) else {}

    def deployments(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """The overrides under `deployments:`, each with its path."""
        yield from _mappings(self.raw.get("deployments"), (*self.path, "deployments"))

    def models(self) -> Iterator[tuple[object, Path]]:
        """The model ids that clients may send, each with the place that says so."""
        models, path = self.args.get("models"), (*self.path, "args")
        if self.role is not Role.MODEL:
            return
        if isinstance(models, dict):
            yield from ((model, (*path, "models", model)) for model in models)
        elif of_catalogue := self._models_of_catalogue():
            yield from ((model, (*path, "model_type")) for model in of_catalogue)
        elif self.args.get("backend") != "api":
            yield self.name, (*self.path, "name")
            adapters = self.args.get("adapters")
            for name in adapters if isinstance(adapters, dict) else ():
                yield f"{self.name}:{name}", (*self.path, "args", "adapters", name)

    def _models_of_catalogue(self) -> Iterable[object]:
        """Those of a commercial model of the catalogue, which go by their names there."""
        name = self.args.get("model_type")
        entry = catalog.entries().get(name) if isinstance(name, str) else None
        return entry.settings.get("models", ()) if entry else ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """All applications of the file, in its order, and the environment of Serve's controller."""

    applications: tuple[Application, ...]
    controller_env: Mapping[str, Any] = field(default_factory=dict)

    def of(self, role: Role) -> list[Application]:
        return [application for application in self.applications if application.role is role]

    def model_ids(self) -> set[str]:
        """Every id that a client may send, aliases apart."""
        ids = (model for application in self.applications for model, _ in application.models())
        return {model for model in ids if isinstance(model, str)}


def read(value: object) -> Inventory | None:
    """The applications of a parsed serve_config; None where it has no list of them."""
    listed = value.get("applications") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        return None
    applications = (Application(*found) for found in _mappings(listed, ("applications",)))
    return Inventory(tuple(applications), _controller_env(value))


def _controller_env(value: object) -> Mapping[str, Any]:
    for key in ("controller_options", "runtime_env", "env_vars"):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _mappings(value: object, path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, dict):
            yield (*path, index), item
