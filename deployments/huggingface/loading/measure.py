"""How much a loaded model can do at a time: measured on the model itself, at the end of loading."""

import contextlib
import logging
from typing import TYPE_CHECKING, Any, Optional

import torch

from deployments.config import HuggingFaceConfig
from deployments.errors import StartError
from deployments.huggingface.engine import cache as caches
from deployments.huggingface.engine.capacity import UNLIMITED, Capacity
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.loading.memory import num_free_tokens, num_planned_tokens
from deployments.huggingface.loading.rehearsal import rehearse
from deployments.huggingface.loading.self_check import CANNOT, can_batch, settle
from deployments.huggingface.protocol.plan import TextModel
from deployments.huggingface.streaming.borrowed import borrowed_weights
from deployments.placement.planner import Plan

if TYPE_CHECKING:
    from deployments.huggingface.adapters.rows import Adapters

logger = logging.getLogger(__name__)


def measure(
    model: Any,
    text_model: TextModel,
    config: HuggingFaceConfig,
    plan: Plan | None = None,
    adapters: Optional["Adapters"] = None,
) -> Capacity:
    """What the engine may take on with this model. What a `memory` was planned for is tried out.

    Raises: StartError, what the model raises.
    """
    decoder = Decoder(model, adapters)
    with borrowed_weights(model):
        batched = settle(decoder, model, text_model, config.attn_implementation == "auto")
        if batched and adapters is not None:
            batched = _can_batch_adapters(decoder, model, text_model, adapters)
    planned = plan if config.memory else None
    max_batch_tokens = config.max_batch_tokens or (
        num_planned_tokens(planned) if planned else _num_free_tokens(decoder)
    )
    _check_room(max_batch_tokens, text_model.limits.max_model_len)
    if not batched:
        logger.warning(
            "%s does not give the same logits in a batch as alone, so its requests are served one "
            "at a time, each prompt in one piece",
            type(model).__name__,
        )
        return Capacity(max_batch_tokens, 1, config.max_queued_requests, UNLIMITED)
    if planned:
        rehearse(decoder, planned.question.workload)
    logger.info("Up to %d tokens are kept in memory at a time", max_batch_tokens)
    return Capacity(
        max_batch_tokens,
        max_sequences=config.max_sequences,
        max_queued_requests=config.max_queued_requests,
        prefill_chunk_tokens=config.prefill_chunk_tokens,
        mixes_adapters=adapters is None or adapters.mixes,
        shares_passes=hasattr(model, "streamer"),
        max_move_bytes=UNLIMITED if planned and planned.streams else None,
    )


def _can_batch_adapters(
    decoder: Decoder, model: Any, text_model: TextModel, adapters: "Adapters"
) -> bool:
    """Whether rows with adapters can be batched; lets `adapters` mix only if it is exact."""
    first, last = adapters.names[0], adapters.names[-1]
    with contextlib.suppress(*CANNOT):
        if adapters.mixes and can_batch(decoder, model, text_model, (None, first, last)):
            return True
    adapters.separate()
    logger.warning(
        "These adapters cannot be mixed in one batch: requests for different ones wait for each "
        "other"
    )
    return all(can_batch(decoder, model, text_model, (name,)) for name in (first, last))


def _check_room(max_batch_tokens: int, max_model_len: int) -> None:
    """Raises: StartError for a model that fits only just, without what it is to remember."""
    if max_batch_tokens < 1:
        raise StartError(
            "The model's weights leave no memory for keys and values. Use a larger device, or a "
            "smaller dtype."
        )
    if max_batch_tokens < max_model_len:
        logger.warning(
            "There is memory for %d tokens, fewer than the %d of the model's context: longer "
            "requests will be refused",
            max_batch_tokens,
            max_model_len,
        )


def _num_free_tokens(decoder: Decoder) -> int:
    one = torch.ones((1, 1), dtype=torch.long, device=decoder.device)
    with torch.inference_mode():
        _, cache = decoder.forward(torch.zeros_like(one), one, None)
    bytes_per_token = caches.bytes_per_token(cache)
    return num_free_tokens(decoder.device, bytes_per_token) if bytes_per_token else UNLIMITED
