"""From a checkpoint to a model that can generate, or to a sentence that says why there is none.

Everything that can be found wrong without torch is found first. Nothing here falls back: weights
that are missing, or a device that is too small, end the start.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments import catalog
from deployments.config import HuggingFaceConfig
from deployments.errors import StartError
from deployments.huggingface import chat
from deployments.huggingface.checkpoint import check_folder, encoder_decoder, is_hub_id
from deployments.huggingface.plan import Limits, TextModel
from deployments.huggingface.vocabulary import Vocabulary

if TYPE_CHECKING:
    from deployments.huggingface.capacity import Capacity

logger = logging.getLogger(__name__)

HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "*.model", "*.txt", "*.tiktoken"]
SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
FALLBACK_CONTEXT = 2048
MAX_REASON_CHARS = 500


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory: transformers' object for the engine and how much of it there is, and what
    requests must know."""

    model: Any
    text_model: TextModel
    capacity: "Capacity"


def load(config: HuggingFaceConfig) -> Loaded:
    """Loads a checkpoint; takes as long as that takes. Raises: StartError."""
    if config.quantization != "none":
        raise StartError(
            f"quantization: {config.quantization} is not there yet in this version of the "
            "huggingface backend. Use `quantization: none`."
        )
    template = _chat_template(config.chat_template)
    folder = _folder(config)
    check_folder(folder)
    try:
        return _load(folder, template, config)
    except _load_errors() as exc:
        reason = f"{type(exc).__name__}: {exc}"[:MAX_REASON_CHARS]
        raise StartError(f"The checkpoint {folder} could not be loaded. {reason}") from exc


def _load_errors() -> tuple[type[Exception], ...]:
    """What transformers, safetensors and torch raise for a checkpoint that they cannot use."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    builtin = (OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError)
    return (*builtin, ImportError, StrictDataclassError, SafetensorError)


def _chat_template(name: str | None) -> str | None:
    if name is None:
        return None
    path = Path(catalog.checkpoint_path(name)).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise StartError(
            f"The chat template {path} cannot be read: {type(exc).__name__}. Set `chat_template` "
            "to a Jinja file, or leave it out for the checkpoint's own."
        ) from exc


def _folder(config: HuggingFaceConfig) -> Path:
    checkpoint = catalog.checkpoint_path(config.checkpoint)
    if not is_hub_id(checkpoint):
        return Path(checkpoint).expanduser()
    from huggingface_hub import snapshot_download

    files = [*HUB_FILES, "*.py"] if config.trust_remote_code else HUB_FILES
    try:
        return Path(snapshot_download(checkpoint, allow_patterns=files))
    except (OSError, ValueError) as exc:  # the bases of all of the hub's errors
        first_line = str(exc).strip().partition("\n")[0][:MAX_REASON_CHARS].rstrip(".")
        raise StartError(
            f"The checkpoint {checkpoint} is neither a folder here nor could it be had from the "
            f"Hugging Face hub. {type(exc).__name__}: {first_line}. Check the name, the network, "
            "HF_HUB_OFFLINE and, for a gated model, HF_TOKEN."
        ) from exc


def _load(folder: Path, template: str | None, config: HuggingFaceConfig) -> Loaded:
    from transformers import AutoTokenizer

    from deployments.huggingface.measure import measure

    trusted = {"trust_remote_code": config.trust_remote_code, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(folder, **trusted)
    if template is not None:
        tokenizer.chat_template = template
    chat.check_template(tokenizer)
    model = _model(folder, config.dtype, trusted)
    _check_forward(model, folder)
    limits = Limits(
        max_model_len=_max_model_len(model.config, tokenizer, config.max_model_len),
        vocab_size=model.get_input_embeddings().weight.shape[0],
        eos_ids=_eos_ids(model.generation_config.eos_token_id, tokenizer.eos_token_id),
        defaults=_defaults(model.generation_config.to_diff_dict()),
    )
    text_model = TextModel(Vocabulary(tokenizer), limits)
    return Loaded(model, text_model, measure(model, text_model, config))


def _model(folder: Path, dtype: str, trusted: Mapping[str, bool]) -> Any:
    """The model on its device. Raises: StartError for one that would not be what was trained."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    architecture = AutoConfig.from_pretrained(folder, **trusted)
    if architecture.is_encoder_decoder:
        raise encoder_decoder(str(folder), architecture.architectures)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        use_safetensors=True,
        device_map={"": device},
        output_loading_info=True,
        **trusted,
    )
    if info["missing_keys"]:  # transformers would fill them with noise, and only log it
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise StartError(
            f"The checkpoint {folder} lacks {len(info['missing_keys'])} of the model's weights "
            f"({missing}, ...). Download it again, or correct its config.json."
        )
    return model.eval()


def _check_forward(model: Any, folder: Path) -> None:
    """Generates nothing, but fails now where the first request would: on a device that is too
    small, or for an architecture without the cache that the engine hands from token to token.

    Raises: StartError, and whatever the model raises.
    """
    import torch

    with torch.inference_mode():
        token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
        output = model(input_ids=token, use_cache=True)
    if getattr(output, "past_key_values", None) is None:
        raise StartError(
            f"The checkpoint {folder} is {type(model).__name__}: it keeps no key-value cache, "
            "which this backend needs. Use another backend for it."
        )


def _max_model_len(model_config: Any, tokenizer: Any, asked: int | None) -> int:
    text_config = model_config.get_text_config()
    sizes = [getattr(text_config, name, None) for name in CONTEXT_FIELDS]
    known = next((size for size in sizes if isinstance(size, int) and size > 0), None)
    if known is None and tokenizer.model_max_length < 10**9:  # transformers' "unknown" is 10**30
        known = int(tokenizer.model_max_length)
    if known is not None and asked is not None and asked > known:
        raise StartError(
            f"max_model_len: {asked} is more than the {known} tokens that the model can take."
        )
    if known is None and asked is None:
        logger.warning("The model does not say its context length: taking %d", FALLBACK_CONTEXT)
    return asked or known or FALLBACK_CONTEXT


def _eos_ids(of_generation: int | list[int] | None, of_tokenizer: int | None) -> frozenset[int]:
    ids = of_generation if isinstance(of_generation, list) else [of_generation]
    return frozenset(i for i in (*ids, of_tokenizer) if i is not None)


def _defaults(generation_config: Mapping[str, Any]) -> dict[str, float]:
    """What the checkpoint's generation_config.json sets; like vLLM, `do_sample` is not among it."""
    found = {name: generation_config.get(name) for name in SAMPLING_DEFAULTS}
    return {name: value for name, value in found.items() if value is not None}
