"""`python -m serve_app`: exit statuses, and output that people, editors and programs can read."""

import json
from pathlib import Path

import pytest

from serve_app.cli import main

FINE = """\
applications:
- {name: router, import_path: "serve_app.app:router"}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "serve_config.yaml"
    path.write_text(FINE)
    return path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_a_fine_file_is_one_line_and_status_0(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` of a fine file says so, with the number of applications."""
    assert run("check", file, "--gpus-per-node", 0) == 0
    assert capsys.readouterr().out == f"{file}: 1 application, fine\n"


def test_a_bad_file_is_a_line_for_each_problem_and_status_1(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` of a bad file prints FILE:LINE: key: message, and refuses."""
    file.write_text(FINE + "http_option: {}\n")
    assert run("check", file, "--gpus-per-node", 0) == 1
    told = f"{file}:3: http_option: unknown key; did you mean `http_options`?\n"
    assert capsys.readouterr().out == told


def test_json_is_for_programs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json gives file, applications and findings with line, path and message."""
    file.write_text(FINE + "http_option: {}\n")
    assert run("check", file, "--json", "--gpus-per-node", 0) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["num_applications"] == 1
    assert [(found["line"], found["path"]) for found in report["findings"]] == [(3, "http_option")]


def test_a_file_that_cannot_be_read_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing file, a folder and bytes that are not UTF-8 are sentences, not tracebacks."""
    (tmp_path / "latin").write_bytes(b"\xe9")
    assert [run("check", tmp_path / name) for name in ("none", ".", "latin")] == [1, 1, 1]
    said = capsys.readouterr().err
    assert all(reason in said for reason in ("No such file", "Is a directory", "not UTF-8"))


@pytest.mark.parametrize("number", ["-1", "many", "nan", "inf"])
def test_a_number_of_gpus_is_a_number(file: Path, number: str) -> None:
    """--gpus-per-node refuses what no machine has."""
    with pytest.raises(SystemExit) as stopped:
        run("check", file, f"--gpus-per-node={number}")
    assert stopped.value.code == 2
