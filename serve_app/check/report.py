"""Refuses a serve_config that Serve would drop parts of, misread, or start in vain.

Starts nothing: neither Ray nor a backend. Whether the file is good is decided from the file, the
catalogue, and the GPUs that the nodes have.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from serve_app.check import (
    aliases,
    args,
    document,
    draining,
    gpus,
    import_path,
    inventory,
    names,
    scaling,
    schema,
)
from serve_app.check.inventory import Inventory
from serve_app.check.nodes import Node
from serve_app.check.problem import Problem, spell

RULES = (
    names.applications,
    names.routes,
    names.models,
    names.router,
    names.deployments,
    import_path.check,
    args.check,
    aliases.check,
    scaling.check,
    draining.check,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem as it is told: `path` is spelled out, "" for the file as a whole."""

    line: int
    path: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """Every problem of a file, by line."""

    file: str
    num_applications: int
    findings: tuple[Finding, ...]

    def as_text(self) -> str:
        """A line for each problem, in the form that editors and compilers share."""
        if not self.findings:
            plural = "" if self.num_applications == 1 else "s"
            return f"{self.file}: {self.num_applications} application{plural}, fine"
        return "\n".join(
            f"{self.file}:{found.line}: {found.path + ': ' if found.path else ''}{found.message}"
            for found in self.findings
        )

    def as_json(self) -> str:
        """The same for programs."""
        return json.dumps(asdict(self), indent=2)


def check(file: str, text: str, largest: Node | None) -> Report:
    """What is wrong with the `text` of a `file`, on a cluster whose `largest` node may be known."""
    parsed, problems = document.load(text)
    if parsed is None:
        return Report(file, 0, tuple(_told(problem, problem.line or 1) for problem in problems))
    asked = inventory.read(parsed.value)
    ours = list(_ours(asked, largest)) if asked else []
    problems += _told_once(ours, schema.check(parsed.value))
    told: dict[tuple[object, ...], Finding] = {}
    for problem in problems:
        line = problem.line or parsed.line(problem.path)
        # An anchor brings one mistake to many paths: the key on its line tells it from others.
        told.setdefault((line, problem.path[-1:], problem.message), _told(problem, line))
    findings = sorted(told.values(), key=lambda finding: (finding.line, finding.path))
    return Report(file, len(asked.applications) if asked else 0, tuple(findings))


def _ours(asked: Inventory, largest: Node | None) -> Iterator[Problem]:
    for rule in RULES:
        yield from rule(asked)
    yield from gpus.check(asked, largest)


def _told_once(ours: list[Problem], of_serve: list[Problem]) -> list[Problem]:
    """Where both speak of one key, ours: they say what to do."""
    spoken_of = {problem.path for problem in ours if len(problem.path) > 1}
    return ours + [problem for problem in of_serve if problem.path not in spoken_of]


def _told(problem: Problem, line: int) -> Finding:
    return Finding(line, spell(problem.path), problem.message)
