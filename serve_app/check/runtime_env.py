"""A `runtime_env`, as far as Ray would drop or refuse it. Whether its URIs exist is not asked."""

from collections.abc import Iterator

from ray.runtime_env import RuntimeEnv

from serve_app.check.problem import Path, Problem, nearest

# RuntimeEnv takes these two under names of their own; what begins with `_` is not for operators.
KNOWN = {"nsight", "rocprof_sys"} | {
    key for key in RuntimeEnv.known_fields if not key.startswith("_")
}


def problems(value: object, path: Path) -> list[Problem]:
    """Unknown keys, and variables that are not text; Serve refuses what is no mapping."""
    if not isinstance(value, dict):
        return []
    unknown = [
        Problem((*path, str(key)), f"unknown key{nearest(key, KNOWN)}")
        for key in value
        if key not in KNOWN
    ]
    return [*unknown, *_env_vars(value.get("env_vars"), (*path, "env_vars"))]


def _env_vars(value: object, path: Path) -> Iterator[Problem]:
    if value is None:
        return
    if not isinstance(value, dict):
        yield Problem(path, "should be a mapping of names to text")
        return
    for key, text in value.items():
        if not isinstance(key, str):
            yield Problem((*path, key), "the name should be text")
        if not isinstance(text, str):
            kind = type(text).__name__
            yield Problem(
                (*path, str(key)), f'should be text in quotes, such as "1"; this is {kind}'
            )
