"""Checkpoints by their hub id: what is downloaded, what is told of it, and what is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deployments.errors import StartError
from deployments.huggingface.loading.loader import load
from deployments.progress import Progress

from .asking import configured
from .fake_hub import Hub, serving, use

REPO = "team/tiny"


@pytest.fixture
def published(random_checkpoint: Path, tmp_path: Path) -> Path:
    """What is in the repository: a checkpoint, and files that are none of our business."""
    folder = tmp_path / "published"
    folder.mkdir()
    for file in random_checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    for name in ("training_args.bin", "model.gguf", "code.py", "README.md"):
        (folder / name).write_bytes(b"none of our business")
    return folder


@pytest.fixture
def hub(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub that the library talks to, with nothing of it in the cache."""
    with serving(REPO, published) as hub:
        use(hub.url, tmp_path / "cache", monkeypatch)
        yield hub


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def test_a_hub_id_is_downloaded_and_told(hub: Hub, published: Path) -> None:
    """Weights, configs and tokenizer are fetched, once and nothing else; how far it is in bytes
    is reported until all is there."""
    told: list[Progress] = []
    load(configured(REPO), told.append)
    assert sorted(set(hub.fetched)) == sorted(hub.fetched)
    assert "model.safetensors" in hub.fetched
    assert not {"training_args.bin", "model.gguf", "code.py"} & set(hub.fetched)
    downloading = [progress for progress in told if progress.stage == "downloading"]
    assert downloading[0].percent is None
    size = (published / "model.safetensors").stat().st_size
    assert downloading[-1].done_bytes == downloading[-1].total_bytes > size
    hub.fetched.clear()
    load(configured(REPO))
    assert hub.fetched == []


def test_pickles_are_downloaded_only_if_they_are_wanted(hub: Hub, published: Path) -> None:
    """Gigabytes that would be refused are not fetched; those that are needed are."""
    pickled(published)
    with pytest.raises(StartError, match="allow_pickle: true"):
        load(configured(REPO))
    assert "pytorch_model.bin" not in hub.fetched
    load(configured(REPO, allow_pickle=True))
    assert "pytorch_model.bin" in hub.fetched
    assert "training_args.bin" not in hub.fetched


def test_pickles_beside_safetensors_are_left(hub: Hub, published: Path) -> None:
    """With `allow_pickle` the weights are still not fetched twice."""
    (published / "pytorch_model.bin").write_bytes(b"the same once more")
    load(configured(REPO, allow_pickle=True))
    assert "pytorch_model.bin" not in hub.fetched


def test_an_id_that_is_not_there_is_named(hub: Hub) -> None:
    """A wrong id, or one that is gated, fails with what to check."""
    with pytest.raises(StartError, match="nobody/nothing") as missing:
        load(configured("nobody/nothing"))
    assert "HF_TOKEN" in missing.value.message
