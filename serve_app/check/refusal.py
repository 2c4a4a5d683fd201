"""What pydantic refuses, as problems: at the key that is there in the file, with the name meant.

Never tells a value that was refused: it may be a secret in the wrong place.
"""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from serve_app.check.problem import Path, Problem, nearest, spell


def problems(
    error: ValidationError, model: type[BaseModel], value: object, at: Path
) -> Iterator[Problem]:
    """One problem per place; what the members of a union say of it is joined."""
    said: dict[Path, list[str]] = {}
    for detail in error.errors(include_url=False, include_input=False):
        path = (*at, *_present(detail["loc"], value))
        messages = said.setdefault(path, [])
        message = _message(detail, model)
        if message not in messages:
            messages.append(message)
    for path, messages in said.items():
        yield Problem(path, " or ".join(messages))


def in_a_line(error: ValidationError, model: type[BaseModel], value: object, at: Path) -> str:
    """The same as a sentence: of what a builder raises, operators see the last line."""
    found = problems(error, model, value, at)
    return "; ".join(f"{spell(problem.path)}: {problem.message}" for problem in found)


def nested(annotation: Any) -> type[BaseModel] | None:
    """The first pydantic model inside an annotation such as `Optional[Union[Dict, Model]]`."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(nested, get_args(annotation))), None)


def unknown_key(key: object, model: type[BaseModel]) -> str:
    """The sentence about a key that a model does not have."""
    return f"unknown key{nearest(key, model.model_fields)}"


def _message(detail: ErrorDetails, model: type[BaseModel]) -> str:
    if detail["type"] == "extra_forbidden":
        return unknown_key(detail["loc"][-1], _model_at(model, detail["loc"][:-1]))
    if detail["type"] == "missing":
        return f"`{detail['loc'][-1]}` is missing"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"the key {message}" if detail["loc"][-1:] == ("[key]",) else message


def _model_at(model: type[BaseModel], loc: Path) -> type[BaseModel]:
    for step in loc:
        field = model.model_fields.get(str(step))
        model = (nested(field.annotation) if field else None) or model
    return model


def _present(loc: Path, value: object) -> Path:
    """`loc` without pydantic's own marks: the names of union members, `[key]`, missing keys."""
    for length, step in enumerate(loc):
        items = dict(enumerate(value)) if isinstance(value, list) else value
        if not isinstance(items, dict) or step not in items:
            return loc[:length]
        value = items[step]
    return loc
