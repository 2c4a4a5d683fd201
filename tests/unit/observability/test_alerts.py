"""The alert rules: they speak when they should, and each says what to do."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.observability.shipped import CLUSTER, PROMETHEUS, alerts

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not there: apt-get install prometheus"
)


def told(*command: str) -> str:
    """What promtool says; it must be content."""
    done = subprocess.run(
        ["promtool", *command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@promtool
def test_alerts_speak_when_they_should() -> None:
    """Each rule has been tried on series where it must fire, and on others where it must not."""
    assert "SUCCESS" in told("test", "rules", str(PROMETHEUS / "alerts_test.yaml"))


def test_every_alert_is_tried() -> None:
    """There is a trial for each alert, in which it fires."""
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text())["tests"]
    fired = {
        trial["alertname"]
        for test in tests
        for trial in test["alert_rule_test"]
        if trial["exp_alerts"]
    }
    assert fired == {alert["alert"] for alert in alerts()}


@promtool
@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus.kuberay.yml"])
def test_prometheus_takes_its_configuration(name: str, tmp_path: Path) -> None:
    """Prometheus accepts both files, the rules included."""
    config = yaml.safe_load((PROMETHEUS / name).read_text())
    for job in config["scrape_configs"]:
        # Debian's build does not know Kubernetes: the rest of the job is looked at without it.
        if job.pop("kubernetes_sd_configs", None) == [{"role": "pod"}]:
            job["static_configs"] = [{"targets": ["pod:8080"]}]
    shutil.copy(PROMETHEUS / "alerts.yaml", tmp_path)
    (tmp_path / name).write_text(yaml.safe_dump(config))
    told("check", "config", str(tmp_path / name))


def anchors() -> set[str]:
    """The headings of the runbook, as links name them."""
    headings = re.findall(r"^#+ (.*)$", (CLUSTER / "runbook.md").read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_each_alert_has_its_entry(alert: dict[str, Any]) -> None:
    """An alert names its entry in the runbook, which says what it means, where to look, and what
    to do."""
    name = alert["alert"]
    assert alert["annotations"]["runbook"] == f"cluster/runbook.md#{name.lower()}"
    entry = (CLUSTER / "runbook.md").read_text().partition(f"\n### {name}\n")[2].split("\n##")[0]
    assert [entry.count(part) for part in ("*Means:*", "*Look:*", "*Do:*")] == [1, 1, 1]


def test_links_inside_the_runbook_lead_somewhere() -> None:
    """No link to a heading or a file is broken."""
    text = (CLUSTER / "runbook.md").read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors()
        else:
            assert (CLUSTER / target.partition("#")[0]).exists(), target
