"""Whether a checkpoint's files are there and whole: found out in milliseconds, without torch.

It looks at names, sizes and headers only. Weights in pickle files (.bin) are taken only where the
operator allows them, and where there are no others.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.errors import StartError
from deployments.huggingface.checkpoint.weight_files import PICKLES, SAFETENSORS, Layout
from deployments.placement.geometry import check_depth
from deployments.placement.header import damaged

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with a model, and the files in it that have the weights."""

    folder: Path
    files: tuple[Path, ...]


def is_hub_id(checkpoint: str) -> bool:
    """Whether a name is to be looked up on the hub: it is no folder and could not be one."""
    return not Path(checkpoint).expanduser().exists() and bool(HUB_ID.fullmatch(checkpoint))


def check_folder(folder: Path, allow_pickle: bool = False, decoder_only: bool = True) -> Checkpoint:
    """The checkpoint in a folder, its files in the order of their names.

    Raises: StartError, saying which file is wrong and what to do about it.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise StartError(
            f"The checkpoint {folder} {what}. Set `checkpoint` to a folder with a model in the "
            "Hugging Face format, or to a hub id."
        )
    config = _read_json(folder / "config.json")
    check_depth(config, f"The checkpoint {folder}")
    if config.get("is_encoder_decoder") and decoder_only:
        raise encoder_decoder(str(folder), config.get("architectures"))
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise StartError(
            f"The checkpoint {folder} has no tokenizer (tokenizer.json or tokenizer.model). "
            "Copy the tokenizer's files of the original model into it."
        )
    layout = _layout(folder, allow_pickle)
    files = _weight_files(folder, layout)
    for file in files:
        if not file.is_file():
            raise StartError(
                f"The checkpoint lacks {file}, which {folder / layout.index} lists. "
                "Download it again."
            )
        layout.check(file)
    return Checkpoint(folder, files)


def has_weights(folder: Path, layout: Layout) -> bool:
    """Whether a folder has weights of this kind, or at least their list."""
    return any((folder / name).is_file() for name in (layout.index, layout.whole))


def encoder_decoder(checkpoint: str, architectures: Any) -> StartError:
    """The refusal of a model that is no decoder."""
    name = ", ".join(architectures or ["an encoder-decoder"])
    return StartError(
        f"The checkpoint {checkpoint} is {name}: an encoder-decoder, which this backend cannot "
        "serve. Use a decoder-only model."
    )


def _layout(folder: Path, allow_pickle: bool) -> Layout:
    """Safetensors wherever there are any. Raises: StartError."""
    if has_weights(folder, SAFETENSORS):
        return SAFETENSORS
    if has_weights(folder, PICKLES) and allow_pickle:
        return PICKLES
    advice = (
        "Download it again, with its *.safetensors files; if it is published with pickle files "
        "(.bin) only, set `allow_pickle: true`."
    )
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        advice = (
            "Its pickle files (.bin) are loaded only with `allow_pickle: true` in the args; no "
            "code in them is run. Better, load the model with transformers and call "
            "save_pretrained."
        )
    raise StartError(f"The checkpoint {folder} has no weights in {SAFETENSORS.whole}. {advice}")


def _weight_files(folder: Path, layout: Layout) -> tuple[Path, ...]:
    if not (folder / layout.index).is_file():
        return (folder / layout.whole,)
    shards = _read_json(folder / layout.index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise damaged(folder / layout.index, "lists no weights")
    return tuple(folder / name for name in sorted(set(map(str, shards.values()))))


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise StartError(
            f"The checkpoint {path.parent} has no {path.name}: it is not a model in the Hugging "
            "Face format. Set `checkpoint` to the folder that has one."
        )
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise damaged(path, "is not a JSON object")
    return content
