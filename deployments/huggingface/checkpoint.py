"""Whether a checkpoint's files are there and whole: found out in milliseconds, without torch.

It looks at names, sizes and headers only. Weights in pickle files (.bin, .pt) are refused: loading
them runs whatever code is in them.
"""

import json
import re
from pathlib import Path
from typing import Any

from deployments.errors import StartError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
LFS_POINTER = b"version https://git-lfs"


def is_hub_id(checkpoint: str) -> bool:
    """Whether a name is to be looked up on the hub: it is no folder and could not be one."""
    return not Path(checkpoint).expanduser().exists() and bool(HUB_ID.fullmatch(checkpoint))


def check_folder(folder: Path) -> None:
    """Raises: StartError, saying which file is wrong and what to do about it."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise StartError(
            f"The checkpoint {folder} {what}. Set `checkpoint` to a folder with a model in the "
            "Hugging Face format, or to a hub id."
        )
    config = _read_json(folder / "config.json")
    if config.get("is_encoder_decoder"):
        raise encoder_decoder(str(folder), config.get("architectures"))
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise StartError(
            f"The checkpoint {folder} has no tokenizer (tokenizer.json or tokenizer.model). "
            "Copy the tokenizer's files of the original model into it."
        )
    for shard in _weight_files(folder):
        check_safetensors(shard)


def encoder_decoder(checkpoint: str, architectures: Any) -> StartError:
    """The refusal of a model that is no decoder."""
    name = ", ".join(architectures or ["an encoder-decoder"])
    return StartError(
        f"The checkpoint {checkpoint} is {name}: an encoder-decoder, which this backend cannot "
        "serve. Use a decoder-only model."
    )


def check_safetensors(path: Path) -> None:
    """Raises: StartError for a file that is shorter or longer than its own header says."""
    if not path.is_file():
        raise StartError(
            f"The checkpoint lacks {path}, which {path.parent / INDEX} lists. Download it again."
        )
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if LFS_POINTER.startswith(start) and start:
            raise StartError(
                f"{path} is a Git LFS pointer, not the weights. Run `git lfs pull` in its folder."
            )
        num_header_bytes = int.from_bytes(start, "little")
        if len(start) < 8 or num_header_bytes > min(MAX_HEADER_BYTES, size - 8):
            raise _damaged(path, f"has {size} bytes, fewer than its header needs")
        num_data_bytes = _num_data_bytes(path, file.read(num_header_bytes))
    expected = 8 + num_header_bytes + num_data_bytes
    if size != expected:
        raise _damaged(path, f"has {size} bytes where its header says {expected}")


def _num_data_bytes(path: Path, header: bytes) -> int:
    try:
        tensors: dict[str, Any] = json.loads(header)
        tensors.pop("__metadata__", None)
        return max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError):
        raise _damaged(path, "has an unreadable header") from None


def _damaged(path: Path, what: str) -> StartError:
    return StartError(f"{path} is truncated or damaged: it {what}. Download it again.")


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        shards = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise _damaged(folder / INDEX, "lists no weights")
        return [folder / name for name in sorted(set(shards.values()))]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    advice = "Download it again, with its *.safetensors files."
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        advice = (
            "Its pickle files (.bin, .pt) are not loaded, since they can run code; convert them: "
            "load the model with transformers where you trust it, and call save_pretrained."
        )
    raise StartError(f"The checkpoint {folder} has no weights in {WEIGHTS}. {advice}")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise StartError(
            f"The checkpoint {path.parent} has no {path.name}: it is not a model in the Hugging "
            "Face format. Set `checkpoint` to the folder that has one."
        )
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise _damaged(path, "is not a JSON object")
    return content
