"""Puts adapters into a model by PEFT, or says why they do not fit it.

PEFT itself takes an adapter for fewer or for more layers than the model has, and only warns.
"""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel

from deployments.errors import StartError
from deployments.huggingface.adapters.rows import Adapters

logger = logging.getLogger(__name__)

MAX_REASON_CHARS = 500


def rehearse(model: Any, folders: Mapping[str, Path]) -> None:
    """Whether the adapters fit a model whose weights are not there yet (`meta` tensors), which is
    used up. Raises: StartError."""
    _inject(model, folders, "cpu", empty=True)


def inject(model: Any, folders: Mapping[str, Path]) -> Adapters:
    """Puts adapters into a model, which stays what it was for rows without one.

    Raises: StartError.
    """
    tuner = _inject(model, folders, str(model.device), empty=False)
    adapters = Adapters(tuner, {name: _label(n) for n, name in enumerate(folders)})
    logger.info("%d adapters loaded: %s", len(folders), ", ".join(folders))
    return adapters


def _inject(model: Any, folders: Mapping[str, Path], device: str, empty: bool) -> Any:
    """PEFT's tuner with all adapters in it."""
    peft: PeftModel | None = None
    for n, (name, folder) in enumerate(folders.items()):
        try:
            peft = _added(peft or model, _label(n), folder, empty)
            found = peft.load_adapter(
                str(folder), _label(n), torch_device=device, low_cpu_mem_usage=empty
            )
        # What PEFT and torch raise for names and shapes that do not match.
        except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as exc:
            raise _misfit(name, folder, f"{type(exc).__name__}: {exc}") from exc
        if wrong := [*found.missing_keys, *found.unexpected_keys]:
            what = "lacks" if found.missing_keys else "has weights for no part of the model:"
            raise _misfit(name, folder, f"It {what} {wrong[0]}, among {len(wrong)}.")
    assert peft is not None
    return peft.base_model


def _added(model: Any, label: str, folder: Path, empty: bool) -> PeftModel:
    """The model with an adapter that has no weights yet."""
    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = True
    config.init_lora_weights = True  # cheap; the weights come from the file anyway
    with warnings.catch_warnings():
        # Of base models trained on, and of tied weights that would matter in training.
        warnings.simplefilter("ignore", UserWarning)
        if isinstance(model, PeftModel):
            model.add_adapter(label, config, low_cpu_mem_usage=empty)
            return model
        return PeftModel(model, config, adapter_name=label, low_cpu_mem_usage=empty)


def _label(number: int) -> str:
    """PEFT's name of an adapter. The operator's may hold dots, which torch takes for paths."""
    return f"adapter{number}"


def _misfit(name: str, folder: Path, reason: str) -> StartError:
    reason = " ".join(reason.split())[:MAX_REASON_CHARS]
    return StartError(
        f"The adapter {name} ({folder}) does not fit the checkpoint. {reason} Is it an adapter of "
        "another base model?"
    )
