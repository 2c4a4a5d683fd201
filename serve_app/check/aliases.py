"""What the router's settings say of models: that they are there, and that no name is two things.

Says nothing of a name that an application of the operator's own code may be meant by.
"""

from collections.abc import Iterator
from typing import Any

from serve_app.check.args import refused
from serve_app.check.inventory import Inventory, Role
from serve_app.check.problem import Path, Problem, nearest
from serve_app.config import RouterSettings


def check(inventory: Inventory) -> Iterator[Problem]:
    """Every `user_config` under the router's `deployments:`."""
    others = {str(app.name) for app in inventory.of(Role.OTHER)}
    for router in inventory.of(Role.ROUTER):
        for path, options in router.deployments():
            settings = options.get("user_config")
            if isinstance(settings, dict):
                at = (*path, "user_config")
                yield from refused(RouterSettings, settings, at)
                yield from _Names(settings, inventory.model_ids() | others, at).problems()


class _Names:
    """The aliases and fallbacks of one `user_config` against the models that there are."""

    def __init__(self, settings: dict[str, Any], models: set[str], path: Path) -> None:
        self._aliases = _mapping(settings.get("aliases"))
        self._fallbacks = _mapping(settings.get("fallbacks"))
        self._models = models
        self._path = path

    def problems(self) -> Iterator[Problem]:
        for alias, target in self._aliases.items():
            yield from self._alias(alias, target, (*self._path, "aliases", alias))
        for model, targets in self._fallbacks.items():
            path = (*self._path, "fallbacks", model)
            yield from self._model(model, path)
            for index, target in enumerate(targets if isinstance(targets, list) else ()):
                yield from self._fallback(model, target, (*path, index))

    def _alias(self, alias: str, target: object, path: Path) -> Iterator[Problem]:
        if alias in self._models:
            yield Problem(path, f"`{alias}` is a model: the alias would hide it")
        elif self._circular(alias):
            yield Problem(path, "the alias leads back to itself")
        elif isinstance(target, str) and target not in self._models | self._aliases.keys():
            names = sorted(self._models | self._aliases.keys() - {alias})
            yield Problem(path, f"no model `{target}`{nearest(target, names)}")

    def _circular(self, alias: str) -> bool:
        name, seen = alias, set[str]()
        while name in self._aliases and name not in seen:
            seen.add(name)
            name = str(self._aliases[name])
        return name == alias

    def _fallback(self, model: str, target: object, path: Path) -> Iterator[Problem]:
        if target == model:
            yield Problem(path, "a model cannot stand in for itself")
        else:
            yield from self._model(target, path)

    def _model(self, name: object, path: Path) -> Iterator[Problem]:
        """Fallbacks are between models; the router resolves aliases before it looks for them."""
        if not isinstance(name, str) or name in self._models:
            return
        if name in self._aliases:
            yield Problem(path, f"`{name}` is an alias; name the model that it stands for")
        else:
            yield Problem(path, f"no model `{name}`{nearest(name, sorted(self._models))}")


def _mapping(value: object) -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else ()
    return {key: item for key, item in items if isinstance(key, str)}
