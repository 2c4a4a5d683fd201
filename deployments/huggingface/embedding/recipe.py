"""How a checkpoint's hidden states become a vector, as sentence-transformers wrote it down.

Reads JSON only. What cannot be done as it is written is refused by name, never left out.
Source: https://sbert.net/docs/package_reference/sentence_transformer/models.html
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.errors import StartError
from deployments.huggingface.embedding.task import MODULES

# The order in which sentence-transformers joins several, and their older switches.
POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
LIBRARY = "sentence_transformers."
NO_EFFECT = {"Dropout"}  # when nothing is trained


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to a pooled vector: "Dense", whose weights are in `folder`, or "Normalize"."""

    kind: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Recipe:
    """`folder` has the model and its tokenizer; `prompt` goes before every text, and is left out of
    the pooling without `include_prompt`."""

    folder: Path
    pooling: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    max_seq_length: int | None = None
    do_lower_case: bool = False
    prompt: str = ""
    include_prompt: bool = True

    @property
    def normalizes(self) -> bool:
        """Whether vectors have length one."""
        return bool(self.steps) and self.steps[-1].kind == "Normalize"


def read_recipe(folder: Path, pooling: str) -> Recipe:
    """The recipe in a folder. `pooling` is used in place of its own, unless it is "auto".

    Raises: StartError.
    """
    asked = {"auto": (), "last": ("lasttoken",)}.get(pooling, (pooling,))
    if not (folder / MODULES).is_file():
        return Recipe(folder, asked or (_default_pooling(folder),))
    kinds = [
        (_kind(module, folder), folder / str(module.get("path", ""))) for module in _listed(folder)
    ]
    if [kind for kind, _ in kinds[:2]] != ["Transformer", "Pooling"]:
        raise _unsupported(folder, "does not begin with a Transformer and a Pooling")
    (_, model), (_, pooling_folder), *rest = kinds
    settings = _settings(pooling_folder / "config.json")
    transformer = _transformer_settings(model)
    return Recipe(
        model,
        asked or _poolings(settings, folder),
        tuple(Step(*step) for step in rest if step[0] not in NO_EFFECT),
        transformer.get("max_seq_length"),
        bool(transformer.get("do_lower_case")),
        _prompt(folder),
        bool(settings.get("include_prompt", True)),
    )


def _listed(folder: Path) -> list[dict[str, Any]]:
    try:
        modules = json.loads((folder / MODULES).read_bytes())
    except ValueError:
        modules = None
    if not isinstance(modules, list) or not all(isinstance(m, dict) for m in modules):
        raise StartError(f"{folder / MODULES} is damaged: it is not a list. Download it again.")
    return sorted(modules, key=lambda module: int(module.get("idx", 0)))


def _kind(module: Mapping[str, Any], folder: Path) -> str:
    name = str(module.get("type"))
    kind = name.rpartition(".")[2]
    known = {"Transformer", "Pooling", "Dense", "Normalize", *NO_EFFECT}
    if not name.startswith(LIBRARY) or kind not in known:
        raise _unsupported(folder, f"has {name}, which this backend does not know")
    return kind


def _transformer_settings(folder: Path) -> dict[str, Any]:
    """They stand in a file that was named after the model's kind once."""
    files = sorted(folder.glob("sentence_*_config.json"))
    settings = _settings(files[0]) if files else {}
    if settings.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise _unsupported(folder, f"is for {settings['transformer_task']}")
    return settings


def _poolings(settings: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    named = settings.get("pooling_mode")
    if named is None:
        named = [mode for mode, switch in POOLINGS.items() if settings.get(switch)] or ["mean"]
    modes = (named,) if isinstance(named, str) else tuple(named)
    if unknown := [mode for mode in modes if mode not in POOLINGS]:
        raise _unsupported(folder, f"pools by {unknown[0]}, which this backend does not know")
    return modes


def _prompt(folder: Path) -> str:
    settings = _settings(folder / "config_sentence_transformers.json")
    name = settings.get("default_prompt_name")
    return "" if name is None else str((settings.get("prompts") or {}).get(name) or "")


def _default_pooling(folder: Path) -> str:
    """sentence-transformers' own default for a checkpoint that it has not saved."""
    config = _settings(folder / "config.json")
    architecture = str((config.get("architectures") or [""])[0])
    causal = architecture.endswith("ForCausalLM") and config.get("is_causal", True)
    return "lasttoken" if causal else "mean"


def _settings(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else {}
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise StartError(f"{path} is damaged: it is not a JSON object. Download it again.")
    return content


def _unsupported(folder: Path, what: str) -> StartError:
    return StartError(
        f"The checkpoint {folder} cannot be served: its {MODULES} {what}. What is served is a "
        "Transformer, a Pooling, and then Dense and Normalize."
    )
