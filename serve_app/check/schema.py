"""The file against Serve's own schema, at every level: Serve drops keys that it does not know.

Serve's pydantic models are walked, not copied, so a new release of Ray brings its own keys. What is
refused at one level is taken out before the level above is validated, so that one mistake hides no
other. Names and routes used twice are left to `names.py`, which knows their lines.
"""

from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from serve_app.check import refusal, runtime_env
from serve_app.check.problem import Path, Problem

# Valid only in the old file with a single application; Serve refuses them without a line.
ELSEWHERE: dict[tuple[type[BaseModel], object], str] = {
    (ServeApplicationSchema, key): "belongs in http_options" for key in ("host", "port")
}
TWICE = "Found "  # how Serve begins what it says of two applications with one name or route
REFUSED = object()

# What a validator of Serve's lets through when a value has not the shape that it takes for granted.
CRASHES = (AttributeError, ImportError, NotImplementedError, TypeError, ValueError)


def check(value: object) -> list[Problem]:
    """Everything that Serve would drop or refuse."""
    inspection = _Inspection()
    inspection.model(ServeDeploySchema, value, ())
    return [
        problem
        for problem in inspection.problems
        if problem.path != ("applications",) or not problem.message.startswith(TWICE)
    ]


class _Inspection:
    """One walk, from the leaves up. Methods return the value as far as it is sound."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def model(self, model: type[BaseModel], value: object, path: Path) -> object:
        if not isinstance(value, dict):
            self.problems.append(Problem(path, "should be a mapping"))
            return REFUSED
        known = {key: item for key, item in value.items() if self._known(model, key, path)}
        fields = {key: self._field(model, key, known, path) for key in known}
        sound = {key: item for key, item in fields.items() if item is not REFUSED}
        return sound if self._accepted(model, sound, path) else REFUSED

    def _known(self, model: type[BaseModel], key: object, path: Path) -> bool:
        misplaced = ELSEWHERE.get((model, key))
        if key in model.model_fields and misplaced is None:
            return True
        step = key if isinstance(key, int) else str(key)
        message = misplaced or refusal.unknown_key(key, model)
        self.problems.append(Problem((*path, step), message))
        return False

    def _field(
        self, model: type[BaseModel], key: str, siblings: dict[str, Any], path: Path
    ) -> object:
        value, annotation = siblings[key], model.model_fields[key].annotation
        if key == "runtime_env":
            return self._environment(value, (*path, key))
        inner = refusal.nested(annotation)
        # What has not the outer shape is for the validation one level up to judge.
        if inner is None or not isinstance(value, list if _lists(annotation) else dict):
            return value
        if isinstance(value, list):
            items = (self.model(inner, item, (*path, key, i)) for i, item in enumerate(value))
            return [item for item in items if item is not REFUSED]
        if inner is AutoscalingConfig and siblings.get("num_replicas") == "auto":
            value = _over_auto_defaults(value)
        return self.model(inner, value, (*path, key))

    def _environment(self, value: object, path: Path) -> object:
        found = runtime_env.problems(value, path)
        self.problems.extend(found)
        return REFUSED if found else value

    def _accepted(self, model: type[BaseModel], value: dict[str, Any], path: Path) -> bool:
        found: list[Problem] = []
        try:
            model.model_validate(value)
        except ValidationError as error:
            found = list(refusal.problems(error, model, value, path))
        except CRASHES as error:
            found = [Problem(path, f"Serve cannot read this: {error}")]
        self.problems.extend(found)
        return not found


def _lists(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_lists, get_args(annotation)))


def _over_auto_defaults(value: dict[str, Any]) -> dict[str, Any]:
    """`num_replicas: auto` brings Serve's own autoscaling; what the file says is laid over it."""
    return {**AutoscalingConfig.default().model_dump(exclude_unset=True), **value}
