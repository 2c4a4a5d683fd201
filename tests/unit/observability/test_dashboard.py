"""The dashboard, as far as it can be seen without Grafana. That what it draws exists on a running
system is for tests/integration/test_metrics.py."""

import itertools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app.metrics.catalog import ALL, PREFIX
from tests.unit.observability.shipped import asked_for, dashboard, drawn, panels

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def test_it_asks_for_its_datasource() -> None:
    """It can be imported anywhere: every panel and variable reads the datasource that is chosen."""
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for name in ("application", "model"):
        assert variables[name]["datasource"] == DATASOURCE
    for panel in panels():
        assert panel["datasource"] == DATASOURCE
        assert {str(target["datasource"]) for target in panel["targets"]} == {str(DATASOURCE)}


def test_its_rows() -> None:
    """What an operator asks first comes first."""
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == [
        "Traffic",
        "Latency",
        "Engines",
        "Cold starts and autoscaling",
        "Errors",
        "Cluster",
    ]


def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    """Where a panel is on Grafana's grid, 24 cells wide."""
    at = panel["gridPos"]
    columns = range(at["x"], at["x"] + at["w"])
    assert columns.stop <= 24
    return set(itertools.product(columns, range(at["y"], at["y"] + at["h"])))


def test_no_panel_hides_another() -> None:
    """Panels have numbers and places of their own."""
    found = dashboard()["panels"]
    assert len({panel["id"] for panel in found}) == len(found)
    taken: set[tuple[int, int]] = set()
    for panel in found:
        assert not taken & cells(panel), panel["title"]
        taken |= cells(panel)


def test_every_metric_of_ours_is_watched() -> None:
    """What is counted is drawn or watched by an alert, and nothing of ours that does not exist."""
    ours = {name for name in asked_for() if name.startswith(PREFIX + "roundhouse_")}
    assert ours <= {name for metric in ALL for name in metric.exposed}
    watched = [metric for metric in ALL if ours & set(metric.exposed)]
    assert watched == list(ALL)


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not there: apt-get install prometheus"
)
def test_prometheus_understands_every_panel(tmp_path: Path) -> None:
    """Every expression is PromQL, once Grafana has put its variables in."""
    filled = [re.sub(r"\$__\w+", "5m", e).replace("$application", ".*") for e in drawn()]
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$model", ".*")}
        for number, expression in enumerate(filled)
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
