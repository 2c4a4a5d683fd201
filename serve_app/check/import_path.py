"""Import paths that lead nowhere. Code of the operator's own is read, never imported.

What a `runtime_env` brings to the replica cannot be seen from here, and is let through.
"""

import ast
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path as File

from serve_app.check.inventory import BUILDERS, MODULE, Application, Inventory
from serve_app.check.problem import Problem, nearest

BRINGS_CODE = {"working_dir", "py_modules", "pip", "uv", "conda", "container", "image_uri"}


def check(inventory: Inventory) -> Iterator[Problem]:
    """Every application whose `import_path` names nothing."""
    for application in inventory.applications:
        module, _, name = application.import_path.partition(":")
        seen_from_here = module and name and not _elsewhere(application)
        if seen_from_here and (message := _wrong(module, name)):
            yield Problem((*application.path, "import_path"), message)


def _elsewhere(application: Application) -> bool:
    env = application.raw.get("runtime_env")
    return isinstance(env, dict) and not BRINGS_CODE.isdisjoint(env)


def _wrong(module: str, name: str) -> str | None:
    """What is wrong with `module:name`; None where nothing is, or nothing can be known."""
    if module == MODULE:
        return None if name in BUILDERS else f"no `{name}` in {module}{nearest(name, BUILDERS)}"
    spec = _find(module)
    if spec is None:
        ours = (f"{MODULE}:{builder}" for builder in BUILDERS)
        return f"no module `{module}`{nearest(f'{module}:{name}', ours)}"
    names = _names(spec)
    if names is None or name.partition(".")[0] in names:
        return None
    return f"no `{name}` in {module}{nearest(name, sorted(names))}"


def _find(module: str) -> ModuleSpec | None:
    """The module as `serve run` would find it, without running its packages' code."""
    where: Sequence[str] | None = [os.getcwd(), *sys.path]  # Serve adds the working directory
    spec = None
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:length]), where)
        if spec is None:
            return None
        where = spec.submodule_search_locations or []
    return spec


def _names(spec: ModuleSpec) -> set[str] | None:
    """What a module binds; None where reading does not tell."""
    if not spec.origin or not spec.origin.endswith(".py"):
        return None
    try:
        tree = ast.parse(File(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    names = {name for node in ast.walk(tree) for name in _bound(node)}
    return None if {"*", "__getattr__"} & names else names


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name).partition(".")[0]
