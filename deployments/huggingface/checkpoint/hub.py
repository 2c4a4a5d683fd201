"""Where a checkpoint's files are: a folder of the operator, or what the hub gives for an id."""

from pathlib import Path

from deployments import catalog
from deployments.adapters import ADAPTER_PICKLE, ADAPTER_WEIGHTS
from deployments.config import HuggingFaceConfig
from deployments.errors import StartError
from deployments.huggingface.checkpoint.weight_files import SAFETENSORS
from deployments.huggingface.checkpoint.whole import has_weights, is_hub_id
from deployments.progress import Progress, Report, unreported

FILES = ["*.json", "*.jinja", "*.safetensors", "*.model", "*.txt", "*.tiktoken"]
PICKLE_FILES = ["pytorch_model*.bin"]
MAX_REASON_CHARS = 500


def folder(config: HuggingFaceConfig, report: Report) -> Path:
    """The checkpoint's folder on this machine, downloaded if need be. Raises: StartError."""
    checkpoint = catalog.checkpoint_path(config.checkpoint)
    if not is_hub_id(checkpoint):
        return Path(checkpoint).expanduser()
    report(Progress("downloading"))
    patterns = [*FILES, "*.py"] if config.trust_remote_code else FILES
    found = _snapshot(checkpoint, patterns, report)
    if config.allow_pickle and not has_weights(found, SAFETENSORS):
        _snapshot(checkpoint, PICKLE_FILES, report)
    return found


def adapter_folder(name: str, config: HuggingFaceConfig) -> Path:
    """An adapter's folder on this machine, downloaded if need be. Raises: StartError."""
    adapter = catalog.checkpoint_path(name)
    if not is_hub_id(adapter):
        return Path(adapter).expanduser()
    found = _snapshot(adapter, FILES)
    if config.allow_pickle and not (found / ADAPTER_WEIGHTS).is_file():
        _snapshot(adapter, [ADAPTER_PICKLE])
    return found


def _snapshot(checkpoint: str, patterns: list[str], report: Report = unreported) -> Path:
    from huggingface_hub import snapshot_download

    from deployments.huggingface.checkpoint.download import bar_for

    bars = bar_for(report)
    try:
        return Path(snapshot_download(checkpoint, allow_patterns=patterns, tqdm_class=bars))
    except (OSError, ValueError) as exc:  # the bases of all of the hub's errors
        first_line = str(exc).strip().partition("\n")[0][:MAX_REASON_CHARS].rstrip(".")
        raise StartError(
            f"{checkpoint} is neither a folder here nor could it be had from the "
            f"Hugging Face hub. {type(exc).__name__}: {first_line}. Check the name, the network, "
            "HF_HUB_OFFLINE and, for a gated model, HF_TOKEN."
        ) from exc
