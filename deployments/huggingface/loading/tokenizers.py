"""A checkpoint's tokenizer, as it was when the model was trained.

transformers 5 reads a LLaMA tokenizer that comes as SentencePiece's file alone by newer defaults:
without the beginning token, and not at all under the name that the first conversions gave it.
"""

import json
from pathlib import Path
from typing import Any

from deployments.errors import StartError

MAX_REASON_CHARS = 500
LLAMA_CLASSES = {None, "LLaMATokenizer", "LlamaTokenizer", "LlamaTokenizerFast"}
LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def load_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """The tokenizer. Raises: StartError."""
    try:
        return _load(folder, trust_remote_code)
    except Exception as exc:
        reason = " ".join(f"{type(exc).__name__}: {exc}".split())[:MAX_REASON_CHARS]
        raise StartError(
            f"The tokenizer of the checkpoint {folder} could not be loaded. {reason}"
        ) from exc


def _load(folder: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer, LlamaTokenizer

    if is_bare_llama(folder):
        settings = _settings(folder / "tokenizer_config.json")
        return LlamaTokenizer.from_pretrained(folder, local_files_only=True, **_llama(settings))
    return AutoTokenizer.from_pretrained(
        folder, trust_remote_code=trust_remote_code, local_files_only=True
    )


def is_bare_llama(folder: Path) -> bool:
    """Whether the tokenizer is LLaMA's, and comes as SentencePiece's file alone."""
    bare = (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file()
    return (
        bare
        and _settings(folder / "config.json").get("model_type") == "llama"
        and _settings(folder / "tokenizer_config.json").get("tokenizer_class") in LLAMA_CLASSES
    )


def _llama(settings: dict[str, Any]) -> dict[str, Any]:
    """What must be said where the checkpoint does not: LLaMA begins every text with a token, and
    conversions of 2023 left the special tokens empty."""
    options: dict[str, Any] = {
        name: token for name, token in LLAMA_TOKENS.items() if settings.get(name) == ""
    }
    if settings.get("add_bos_token") is None:
        options["add_bos_token"] = True
    return options


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_bytes())
    return content if isinstance(content, dict) else {}
