"""cluster/runbook.md: its example of how large a cluster must be is what `plan-cluster` says."""

import math
import re
import shlex
import textwrap
from pathlib import Path

import pytest

from serve_app.cli import main
from tests.unit.cluster_files.kubernetes import ROOT

RUNBOOK = (ROOT / "cluster" / "runbook.md").read_text()
CHAPTER = RUNBOOK.partition("## How large")[2].partition("\n## ")[0]
BLOCKS = [
    textwrap.dedent(block).strip("\n")
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", CHAPTER, re.DOTALL | re.MULTILINE)
]
CONFIG, *PLANS = BLOCKS


@pytest.mark.parametrize("plan", PLANS)
def test_the_plans_are_what_the_command_says(
    plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every figure of the worked example comes out of the command that stands above it."""
    (tmp_path / "sizes.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    command, _, expected = plan.partition("\n\n")
    python, _, module, *arguments = shlex.split(command)
    assert (python, module) == ("python", "serve_app")
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip() == expected


def test_the_rule_of_thumb() -> None:
    """The number of replicas follows from its own figures."""
    figures = re.search(r"(\d+) / \((\d+) x ([\d.]+)\) = ([\d.]+), so (\d+)", CHAPTER)
    assert figures is not None
    demand, one, share, ratio, replicas = map(float, figures.groups())
    assert round(demand / (one * share), 1) == ratio
    assert math.ceil(ratio) == replicas


def test_both_plans_stand_there() -> None:
    """One that is too small at its most, and one that is not."""
    assert [("find no room" in plan) for plan in PLANS] == [True, False]


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([\w./-]+)\)", RUNBOOK))))
def test_links_lead_somewhere(link: str) -> None:
    """What the runbook points to is there."""
    assert (ROOT / "cluster" / link).exists()
