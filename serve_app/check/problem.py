"""One thing that is wrong in a serve_config, and how it is told. Decides nothing."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

Path = tuple[str | int, ...]
"""Where in the file: keys of mappings and indices of lists, from the top."""

MAX_NAMES_LISTED = 12


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where. `line` is given only where `path` does not lead to it."""

    path: Path
    message: str
    line: int | None = None


def spell(path: Path) -> str:
    """A path as operators write it: `applications[1].args.num_gpus`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def nearest(name: object, names: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known: the one that was meant, or all."""
    by_lower = {known.lower(): known for known in names}
    close = get_close_matches(str(name).lower(), by_lower, n=1)
    if close:
        return f"; did you mean `{by_lower[close[0]]}`?"
    if not by_lower or len(by_lower) > MAX_NAMES_LISTED:
        return ""
    return f"; there is {', '.join(f'`{known}`' for known in by_lower.values())}"
