"""From a checkpoint to a model that can generate, or to a sentence that says why there is none.

Everything that can be found wrong without torch is found first. Nothing here falls back: weights
that are missing, or a device that is too small, end the start.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments import catalog
from deployments.config import HuggingFaceConfig
from deployments.errors import StartError, WeightsLost
from deployments.huggingface.adapters.files import check_adapter
from deployments.huggingface.checkpoint import hub
from deployments.huggingface.checkpoint.whole import Checkpoint, check_folder
from deployments.huggingface.engine.vocabulary import Vocabulary
from deployments.huggingface.loading import remote_code
from deployments.huggingface.loading.tokenizers import load_tokenizer
from deployments.huggingface.protocol import chat
from deployments.huggingface.protocol.plan import Limits, TextModel
from deployments.huggingface.protocol.tools.support import tool_support
from deployments.progress import Progress, Report, unreported
from deployments.stops import stop_ids

if TYPE_CHECKING:
    from deployments.huggingface.adapters.rows import Adapters
    from deployments.huggingface.engine.capacity import Capacity

logger = logging.getLogger(__name__)

SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
# What generate would do to the logits besides, or to the search.
NOT_APPLIED = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "num_beams",
    "sequence_bias",
    "suppress_tokens",
)
NEUTRAL: tuple[Any, ...] = (None, 0, 1, [], {})
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
    adapters: "Adapters | None" = None


def load(
    config: HuggingFaceConfig, report: Report = unreported, folder: Path | None = None
) -> Loaded:
    """Loads a checkpoint, from its `folder` if that is known already; takes as long as that takes.

    Raises: StartError.
    """
    template = _chat_template(config.chat_template)
    checkpoint = check_folder(folder or hub.folder(config, report), config.allow_pickle)
    adapters = {name: hub.adapter_folder(path, config) for name, path in config.adapters.items()}
    for name, path in adapters.items():
        check_adapter(name, path, config.allow_pickle)
    with translated(checkpoint.folder):
        return _load(checkpoint, adapters, template, config, report)


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Says of a checkpoint that cannot be loaded why. Raises: StartError."""
    try:
        yield
    except _load_errors() as exc:
        reason = " ".join(f"{type(exc).__name__}: {exc}".split())[:MAX_REASON_CHARS]
        raise StartError(f"The checkpoint {folder} could not be loaded. {reason}") from exc


def _load_errors() -> tuple[type[Exception], ...]:
    """What transformers, safetensors and torch raise for a checkpoint that they cannot use."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    builtin = (OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError)
    return (
        *builtin,
        ArithmeticError,
        ImportError,
        AssertionError,
        MemoryError,
        WeightsLost,
        StrictDataclassError,
        SafetensorError,
    )


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


def _load(
    checkpoint: Checkpoint,
    adapters: Mapping[str, Path],
    template: str | None,
    config: HuggingFaceConfig,
    report: Report,
) -> Loaded:
    from deployments.huggingface.loading.build import build
    from deployments.huggingface.loading.measure import measure
    from deployments.huggingface.loading.placing import place, settled

    remote_code.announce(checkpoint.folder, config.trust_remote_code)
    report(Progress("reading the tokenizer"))
    tokenizer = load_tokenizer(checkpoint.folder, config.trust_remote_code)
    if template is not None:
        tokenizer.chat_template = template
    chat.check_template(tokenizer)
    plan = place(checkpoint.folder, config, adapters.values())
    config = settled(config, plan)
    _check_adapters(adapters, checkpoint.folder, config)
    model = build(checkpoint, config, plan, report)
    report(Progress("checking the model"))
    _check_forward(model, checkpoint.folder)
    tools = tool_support(tokenizer, config.tool_call_parser)
    text_model = TextModel(Vocabulary(tokenizer), _limits(model, tokenizer, config), tools)
    adapted = _adapted(model, adapters)
    capacity = measure(model, text_model, config, plan, adapted)
    return Loaded(model, text_model, capacity, adapted)


def _check_adapters(adapters: Mapping[str, Path], folder: Path, config: HuggingFaceConfig) -> None:
    """In seconds, where reading the checkpoint's weights may take minutes. Raises: StartError."""
    if not adapters:
        return
    from deployments.huggingface.adapters.loading import rehearse
    from deployments.huggingface.loading.build import skeleton

    rehearse(skeleton(folder, config), adapters)


def _adapted(model: Any, adapters: Mapping[str, Path]) -> "Adapters | None":
    """Puts the adapters into the model. Raises: StartError."""
    if not adapters:
        return None
    from deployments.huggingface.adapters.loading import inject

    return inject(model, adapters)


def _limits(model: Any, tokenizer: Any, config: HuggingFaceConfig) -> Limits:
    vocab_size = model.get_input_embeddings().weight.shape[0]
    eos_ids = _eos_ids(model.generation_config.eos_token_id, tokenizer.eos_token_id)
    eos_ids |= stop_ids(tokenizer, config.stop, config.stop_token_ids)
    return Limits(
        max_model_len=max_model_len(model.config, tokenizer, config.max_model_len),
        vocab_size=vocab_size,
        eos_ids=frozenset(i for i in eos_ids if i < vocab_size),  # others can never come
        defaults=_defaults(model.generation_config.to_diff_dict()),
        stop_strings=config.stop,
    )


def _check_forward(model: Any, folder: Path) -> None:
    """Generates nothing, but fails now where the first request would: on a device that is too
    small, or for an architecture without the cache that the engine hands from token to token.

    Raises: StartError, and whatever the model raises.
    """
    import torch

    with torch.inference_mode():
        token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
        output = model(input_ids=token, use_cache=True)
    if bool(output.logits.isnan().any()):
        raise StartError(
            f"The checkpoint {folder} gives no numbers as {model.dtype}: its weights are damaged, "
            "or that type is too small for them. Set `dtype: bfloat16` or `dtype: float32`."
        )
    if getattr(output, "past_key_values", None) is None:
        raise StartError(
            f"The checkpoint {folder} is {type(model).__name__}: it keeps no key-value cache, "
            "which this backend needs. Use another backend for it."
        )


def max_model_len(model_config: Any, tokenizer: Any, asked: int | None) -> int:
    """The tokens that a model can take, or fewer if fewer are asked for. Raises: StartError."""
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
    if ignored := [name for name in NOT_APPLIED if generation_config.get(name) not in NEUTRAL]:
        logger.warning(
            "generation_config.json has %s, which is not applied here as generate would",
            ", ".join(ignored),
        )
    found = {name: generation_config.get(name) for name in SAMPLING_DEFAULTS}
    return {name: value for name, value in found.items() if value is not None}
