import json
import logging
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments.errors import StartError
from deployments.huggingface.loading.loader import load
from deployments.huggingface.loading.weights import Tally
from deployments.progress import Progress, unreported

from .asking import COMPLETIONS, ask, configured, started


@pytest.fixture
def checkpoint(random_checkpoint: Path, tmp_path: Path) -> Path:
    for file in random_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def split(folder: Path, suffix: str, save: Callable[[dict, Path], object]) -> list[Path]:
    """The weights in two shards with an index, in place of the one file."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    halves = list(weights)[::2], list(weights)[1::2]
    files = [folder / f"{stem}-0000{n}-of-00002.{suffix}" for n in (1, 2)]
    for file, names in zip(files, halves, strict=True):
        save({name: weights[name].clone() for name in names}, file)
    index = {name: file.name for file, half in zip(files, halves, strict=True) for name in half}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": index}))
    return files


def pickled(folder: Path) -> Path:
    """The weights in one pickle file, in place of safetensors."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder / "pytorch_model.bin"


def reason(checkpoint: Path, **settings: object) -> str:
    with pytest.raises(StartError) as failed:
        load(configured(checkpoint, **settings))
    return failed.value.message


async def text(checkpoint: Path, **settings: object) -> str:
    async with started(checkpoint, **settings) as backend:
        got = await ask(backend, COMPLETIONS, prompt="ab", temperature=0, max_tokens=20)
    return str(got.body["choices"][0]["text"])


def save_legacy(weights: dict, file: Path) -> None:
    torch.save(weights, file, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("suffix", "save"), [("safetensors", save_file), ("bin", torch.save), ("bin", save_legacy)]
)
async def test_shards_are_loaded_and_told(
    checkpoint: Path,
    random_checkpoint: Path,
    caplog: pytest.LogCaptureFixture,
    suffix: str,
    save: Callable[[dict, Path], object],
) -> None:
    """A sharded checkpoint answers as the whole one; bytes and shards are reported and logged."""
    files = split(checkpoint, suffix, save)
    told: list[Progress] = []
    with caplog.at_level(logging.INFO, "deployments"):
        load(configured(checkpoint, allow_pickle=suffix == "bin"), told.append)
    assert [p.stage for p in told if not p.shards] == [
        "reading the tokenizer",
        "checking the model",
    ]
    loading = [p for p in told if p.shards]
    assert (loading[0].percent, loading[-1].percent) == (0, 100)
    assert [p.done_bytes for p in loading] == sorted(p.done_bytes for p in loading)
    assert len({p.done_bytes for p in loading}) > 10
    for shard, file in zip(loading[-1].shards, files, strict=True):
        assert (shard.file, shard.done_bytes) == (file.name, file.stat().st_size)
    assert "loading weights: 100 %" in caplog.text
    assert "2 of 2 files" in caplog.text
    assert len([r for r in caplog.records if r.getMessage().startswith("loading")]) <= 10
    assert await text(checkpoint, allow_pickle=True) == await text(random_checkpoint)


def test_pickles_need_permission(checkpoint: Path) -> None:
    """Weights that are only in pickle files are refused, naming the setting that allows them."""
    pickled(checkpoint)
    assert "allow_pickle: true" in reason(checkpoint)
    load(configured(checkpoint, allow_pickle=True))


def test_safetensors_come_first(checkpoint: Path) -> None:
    """Where there are both, pickles are not even looked at."""
    (checkpoint / "pytorch_model.bin").write_bytes(b"no pickle at all")
    load(configured(checkpoint, allow_pickle=True))


class Attack:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._mark,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_pickles_is_not_run(checkpoint: Path, legacy: bool) -> None:
    """A pickle that would run code is refused, and has run none."""
    file = pickled(checkpoint)
    mark = checkpoint / "mark"
    content = {"model.norm.weight": torch.ones(32), "x": Attack(mark)}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    assert "holds more than weights" in reason(checkpoint, allow_pickle=True)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Attack(mark)))
    assert mark.exists()


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def truncate_legacy(file: Path) -> None:
    save_legacy(torch.load(file), file)
    truncate(file)


def leave_a_pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def spoil(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[30:200] = bytes(170)
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, "truncated or damaged: it has no end"),
        (truncate_legacy, "truncated or damaged: it cannot be read"),
        (spoil, "is damaged, or holds more than weights"),
        (leave_a_pointer, "git lfs pull"),
        (lambda file: file.write_bytes(b""), "not a file that torch.save wrote"),
        (lambda file: torch.save([1], file), "holds no weights by name"),
        (lambda file: torch.save({}, file), "lacks 21 of the model's weights"),
    ],
)
def test_damaged_pickles_are_named(
    checkpoint: Path, damage: Callable[[Path], object], says: str
) -> None:
    """A pickle file that is not whole is named, before or while it is read."""
    file = pickled(checkpoint)
    damage(file)
    assert re.search(says, reason(checkpoint, allow_pickle=True))


def test_the_files_say_the_type_where_the_config_does_not(checkpoint: Path) -> None:
    """`dtype: auto` is the config's, else that of the weights."""
    config = json.loads((checkpoint / "config.json").read_text())
    auto = configured(checkpoint).model_copy(update={"dtype": "auto"})
    config["dtype"] = "bfloat16"
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert load(auto).model.dtype == torch.bfloat16
    del config["dtype"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert load(auto).model.dtype == torch.float32


def test_all_is_logged_when_all_is_there(caplog: pytest.LogCaptureFixture) -> None:
    """The line with 100 % is the last, and counts every file: it is not there while only what lies
    between the tensors is missing."""
    sizes = {"a": 10**6, "b": 10**6}
    with caplog.at_level(logging.INFO, "deployments"):
        tally = Tally(sizes, unreported)
        for file, size in sizes.items():
            tally.add(file, size - 9)
        assert "100 %" not in caplog.text
        tally.finish()
    assert caplog.messages[-1].endswith("100 %, 0.00 of 0.00 GB, 2 of 2 files")
