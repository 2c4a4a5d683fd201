"""`roundhouse models`: the catalogue as people and as programs read it, and its plans."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import yaml

from deployments.catalog import entries
from serve_app.cli import main

EIGHT = ("--gpus-per-node", "8")


def models(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["models", *arguments]) == 0
    return capsys.readouterr().out


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(models(capsys, *arguments, "--json"))["plan"]


def test_the_list_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    """Each model has a line, with what serves it, its size, its GPUs, its licence and its home."""
    heading, *lines = models(capsys).splitlines()
    assert [line.split()[0] for line in lines] == list(entries())
    starts = [heading.index(word) for word in ("BACKEND", "LICENCE", "FROM")]
    falcon = next(line for line in lines if line.startswith("falcon"))
    cells = [falcon[start:].split("  ")[0] for start in starts]
    assert cells == ["vllm", "apache-2.0", "tiiuae/falcon-40b-instruct"]
    assert falcon.split()[2:6] == ["41.3B", "2048", "2", "8"]


def test_the_list_says_what_stands_in_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    """A gate, a missing checkpoint and a replacement are seen at a glance."""
    lines = {line.split()[0]: line for line in models(capsys).splitlines()}
    assert "(gated)" in lines["llama-2-7b-chat"]
    assert "needs your `checkpoint`" in lines["alpaca-7b"]
    assert "gemini-3.8-flash" in lines["bard"]


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """--json gives every entry in full."""
    listed = {model["model_type"]: model for model in json.loads(models(capsys, "--json"))}
    assert list(listed) == list(entries())
    assert listed["vicuna-33b"]["gpus"] == {"80": 1, "24": 4}
    assert listed["vicuna-33b"]["settings"]["stop_token_ids"] == [2]


def test_one_entry_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    """`models NAME` is YAML: the entry, its settings in the words of the args, and the plan."""
    one = yaml.safe_load(models(capsys, "pythia-12b", *EIGHT))
    assert one["settings"]["stop"] == ["<|endoftext|>", "\nQuestion:"]
    assert (one["license"], one["repo"]) == ("apache-2.0", "EleutherAI/pythia-12b")
    assert one["plan"]["fits"] is True
    demo = yaml.safe_load(models(capsys, "demo"))
    assert demo["settings"]["checkpoint"] == "package:demo/model"


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown name is refused with the nearest."""
    assert main(["models", "falcon-40b"]) == 1
    assert "did you mean `falcon-40b-instruct`?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "num_gpus", "memory_gb", "asked", "fits"),
    [
        ("falcon-40b-instruct", "8", "80", 2, True),
        ("falcon-40b-instruct", "8", "24", 8, True),
        ("falcon-40b-instruct", "4", "24", 8, False),
        ("falcon-40b-instruct", "1", "141", 2, False),
        ("falcon-40b-instruct", "0", "80", 2, False),
        ("llama-2-7b-chat", "1", "24", 1, True),
        ("llama-2-7b-chat", "0", "80", 0, None),
        ("mpt-30b-chat", "1", "80", 1, True),
        ("demo", "0", "80", 0, True),
        ("demo", "1", "24", 0.4, True),
        ("gpt-4", "0", "80", 0, True),
    ],
)
def test_the_plan(  # noqa: PLR0913, PLR0917 - a table's columns
    capsys: pytest.CaptureFixture[str],
    name: str,
    num_gpus: str,
    memory_gb: str,
    asked: float,
    fits: bool | None,
) -> None:
    """The plan says what a replica asks of a node with such GPUs, and whether it has them."""
    plan = planned(capsys, name, "--gpus-per-node", num_gpus, "--gpu-memory-gb", memory_gb)
    assert (plan["gpus_per_replica"], plan["fits"]) == (asked, fits)
    assert plan["backend"] == entries()[name].backend


def test_the_plans_args_are_what_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    """The args of a plan name the memory where it is not the usual, and the missing checkpoint."""
    smaller = ("--gpu-memory-gb", "47.8")
    assert planned(capsys, "ultralm-65b", *EIGHT, *smaller)["args"] == {
        "model_type": "ultralm-65b",
        "checkpoint": "/where/it/is",
        "gpu_memory_gb": 47,
    }
    assert planned(capsys, "vicuna-33b", *EIGHT)["args"] == {"model_type": "vicuna-33b"}


def test_gpus_that_are_too_small(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the catalogue knows no way, the plan says so, and what to set."""
    plan = planned(capsys, "starchat", *EIGHT, "--gpu-memory-gb", "24")
    assert plan["fits"] is False
    assert "quantization" in plan["why"]


def test_unknown_nodes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a cluster that does not answer nothing is claimed."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert planned(capsys, "vicuna-33b")["fits"] is None


@pytest.mark.parametrize("amount", ["-1", "many", "nan", "inf"])
def test_amounts_are_numbers(amount: str) -> None:
    """What is no amount is refused."""
    with pytest.raises(SystemExit) as stopped:
        main(["models", "demo", f"--gpu-memory-gb={amount}"])
    assert stopped.value.code == 2


def test_a_reader_that_has_enough() -> None:
    """`roundhouse models demo | head -1` says nothing of the rest that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "serve_app", "models", "demo"]
    with os.fdopen(writing, "wb") as nobody:
        done = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
