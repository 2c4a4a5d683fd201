"""A call's arguments: JSON that a model or a client has written, which may be anything."""

from typing import Any

import jiter


def read_arguments(text: str) -> dict[str, Any] | None:
    """The object; None if it is none, or one that templates and clients could not take on: nested
    without end, with half a character, or with numbers that JSON does not have."""
    try:
        found = jiter.from_json(text.encode(), allow_inf_nan=False)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
