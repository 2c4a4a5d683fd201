"""Code that comes with a checkpoint: said before it runs, and only where the operator allows it."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

NAMING_FILES = ("config.json", "tokenizer_config.json")


def announce(folder: Path, is_trusted: bool) -> None:
    """Logs which code of a checkpoint is going to be run."""
    code = sorted(set(_named(folder)))
    if code and is_trusted:
        logger.warning(
            "Running code that comes with the checkpoint %s, as trust_remote_code allows: %s",
            folder,
            ", ".join(code),
        )


def _named(folder: Path) -> Iterator[str]:
    """The files, or `repository--module`, that the checkpoint's configs map to classes."""
    for file in NAMING_FILES:
        path = folder / file
        config = json.loads(path.read_bytes()) if path.is_file() else {}
        for reference in _flat(config.get("auto_map") or {}):
            module = reference.rpartition(".")[0]
            yield module if "--" in module else f"{module}.py"


def _flat(auto_map: Any) -> Iterator[str]:
    """The classes of a map, of which tokenizers have a slow and a fast one, or none."""
    values = auto_map.values() if isinstance(auto_map, dict) else [auto_map]
    for value in values:
        yield from (str(v) for v in (value if isinstance(value, list) else [value]) if v)
