"""What few bytes of a JSON schema can ask of a grammar, bounded before it is compiled.

llguidance, with which vLLM too compiles what it does not leave to xgrammar, makes a part of its
grammar for each item that an array must or may have, and a state for each remainder of a division,
and looks at its own limits afterwards: `minItems` of a billion took all memory and ended the
process, with the answers of everybody else.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from math import lcm
from typing import Any

from deployments.errors import InvalidRequest

# As many symbols as a grammar of llguidance can have; no answer has as many items.
MAX_PARTS = 2**16
# Of several divisions at one place it follows the remainders together: this many take half a
# second, and 2**30 half a minute and gigabytes.
MAX_REMAINDERS = 2**24
COUNTS = ("minItems", "maxItems")
VALUES = ("const", "enum", "default", "examples")  # what stands there is no schema


def check_parts(schemas: Iterable[object], param: str) -> None:
    """Raises: InvalidRequest for schemas, or what holds some, that come to too much together; they
    are what was asked for by `param`."""
    parts = [part for schema in schemas for part in _parts(schema)]
    divisors = {_whole(divisor) for divisor in _numbers(parts, "multipleOf")}
    counts = (abs(int(count)) for name in COUNTS for count in _numbers(parts, name))
    if sum(counts) + sum(divisors) > MAX_PARTS or lcm(*divisors) > MAX_REMAINDERS:
        raise InvalidRequest(
            f"Invalid '{param}': what minItems, maxItems and multipleOf ask for is too much to be "
            f"enforced. All together they may come to {MAX_PARTS}.",
            param=param,
        )


def _parts(schema: object) -> Iterable[Mapping[str, Any]]:
    """The schema, and all that stands in it where a schema may."""
    left = list[Any]([schema])
    while left:
        part = left.pop()
        if isinstance(part, Mapping):
            yield part
            left += [value for name, value in part.items() if name not in VALUES]
        elif isinstance(part, list):
            left += part


def _numbers(parts: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    values = (part.get(name) for part in parts)
    return [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]


def _whole(divisor: float) -> int:
    """A divisor without its decimal point, as it is computed with."""
    _, digits, exponent = Decimal(str(divisor)).as_tuple()
    shift = exponent if isinstance(exponent, int) else 0
    return int("".join(map(str, digits)) + "0" * shift)
