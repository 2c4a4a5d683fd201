"""The files that are shipped for operators, and what is asked in them."""

from pathlib import Path
from typing import Any

import yaml

CLUSTER = Path(__file__).parents[3] / "cluster"
PROMETHEUS = CLUSTER / "prometheus"


def rules() -> list[dict[str, Any]]:
    """Every rule of alerts.yaml."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]
