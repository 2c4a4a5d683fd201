"""The files that are shipped for operators, and what they ask Prometheus for."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CLUSTER = Path(__file__).parents[3] / "cluster"
PROMETHEUS = CLUSTER / "prometheus"
STRING = re.compile(r'"[^"]*"')
SELECTED = re.compile(r"\b(ray_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")


def rules() -> list[dict[str, Any]]:
    """Every rule of alerts.yaml."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CLUSTER / "grafana" / "roundhouse.json").read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """What the dashboard draws, its rows' titles left out."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def drawn() -> list[str]:
    """Every expression of the dashboard."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics that an expression reads, each with the labels that it selects by."""
    for name, labels in SELECTED.findall(STRING.sub('""', expression)):
        yield name, set(LABEL.findall(labels))


def asked_for() -> dict[str, set[str]]:
    """Every metric that a panel or a rule reads, and the labels that any selects it by."""
    found: dict[str, set[str]] = {}
    for expression in (*drawn(), *(rule["expr"] for rule in rules())):
        for name, labels in selectors(expression):
            found.setdefault(name, set()).update(labels)
    return found
