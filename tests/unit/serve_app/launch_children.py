"""Real processes for tests of the launcher: started, awaited by what they print, ended by pid."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from serve_app.launch.plan import Plan

LAUNCH = """
import sys
from pathlib import Path
from serve_app.launch import foreground
from serve_app.launch.plan import Plan
port, child, limit_s = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
foreground.GRACE_S = foreground.PATIENCE_S = limit_s
plan = Plan(Path("serve_config.yaml"), "127.0.0.1", port, ("demo",), {})
sys.exit(foreground.supervise([sys.executable, "-c", child, str(port)], plan))
"""


def plan_at(port: int, **more: object) -> Plan:
    """A plan of one application, demo."""
    return Plan(Path("serve_config.yaml"), "127.0.0.1", port, ("demo",), {}, **more)  # type: ignore[arg-type]


def named(name: str, command: str, folder: Path) -> Path:
    """A copy of a system command under another name, which processes are known by."""
    found = shutil.which(command)
    assert found is not None
    return Path(shutil.copy(found, folder / name))


@contextmanager
def running(
    command: Sequence[str | Path], env: dict[str, str] | None = None, keep: tuple[int, ...] = ()
) -> Iterator["subprocess.Popen[str]"]:
    """A process whose output is read by the test; it and its children are killed at the end."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=keep,
    )
    try:
        yield process
    finally:
        _kill(process)
        process.communicate()


def _kill(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()


def launched(child: str, port: int = 9, limit_s: float = 60) -> Sequence[str]:
    """The command of a launcher whose `serve run` is a Python program of the test's, and which
    gives it so long to end by itself."""
    return [sys.executable, "-c", LAUNCH, str(port), child, str(limit_s)]


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """The lines up to the first one with `text`; fails if the output ends before."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"no {text!r} in:\n{seen}")
