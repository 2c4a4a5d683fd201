"""How a request's fields are read, whatever they are: strictly, and none is dropped silently."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """No coercion ("0.5" is no number, true is no integer) and no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, protected_namespaces=())


def refuse_unless_empty(value: object) -> object:
    """Lets the empty forms of what is not there pass."""
    if value in (None, [], {}):
        return value
    raise PydanticCustomError("unsupported_parameter", "this backend does not support it yet")


Ignored = Any  # a field that changes nothing in what this backend answers
Unsupported = Annotated[Any, AfterValidator(refuse_unless_empty)]
