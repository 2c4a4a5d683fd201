"""One forward pass of any decoder, given what its architecture takes of masks and positions."""

import inspect
from collections.abc import Callable
from collections.abc import Sequence as Rows
from typing import TYPE_CHECKING, Any, Optional

import torch
from torch import Tensor

from deployments.huggingface.engine import grouped, prefetch, rms_norm, rotary, step_mask

if TYPE_CHECKING:
    from deployments.huggingface.adapters.rows import Adapters

Options = dict[str, Any]


class Decoder:
    """Calls a transformers model with left-padded rows.

    Models that take no positions derive them themselves: Bloom and MPT from the mask and the
    columns (ALiBi). All others must be told: they would count the padding. A prompt of more than
    `turn` tokens must be read whole; an answer that gets as long is read anew if it `forgets`.
    """

    def __init__(self, model: Any, adapters: Optional["Adapters"] = None) -> None:
        grouped.install()
        step_mask.install()
        prefetch.install(model)
        rms_norm.install(model)
        self.turn = rotary.install(model)
        self.forgets = self.turn is not None and rotary.forgets(model)
        _make_head_compact(model)
        self.device: torch.device = model.device
        self.adapters = adapters
        self.weight_bytes = sum(weight.nbytes for weight in model.parameters())
        self._model = model
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._options = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}

    def forward(
        self, ids: Tensor, mask: Tensor, cache: Any, adapters: Rows[str | None] = ()
    ) -> tuple[Tensor, Any]:
        """The logits `(batch, vocab)` after the last column, and the cache that includes `ids`.

        `ids` are the newest columns `(batch, new)`; `mask` `(batch, past + new)` is 0 where a row
        is padded. What padding puts into the cache is never looked at. `adapters` are those of
        the rows; none of them for the base alone.
        """
        logits, cache = self._forward(ids, mask, cache, adapters, self._options)
        return logits[:, -1], cache

    def forward_columns(
        self, ids: Tensor, mask: Tensor, cache: Any, adapters: Rows[str | None] = ()
    ) -> tuple[Tensor, Any]:
        """The same with the logits `(batch, new, vocab)` after each of the new columns."""
        return self._forward(ids, mask, cache, adapters, {})

    def both(self, first: Callable[[], None], second: Callable[[], None]) -> None:
        """Two actions that take a pass each: over weights that stream, the passes go side by side,
        and each layer is read once. Raises: what they raise, once both have ended."""
        streamer = getattr(self._model, "streamer", None)
        if streamer is not None:
            streamer.together(first, second)
        else:
            first()
            second()

    def _forward(
        self, ids: Tensor, mask: Tensor, cache: Any, adapters: Rows[str | None], options: Options
    ) -> tuple[Tensor, Any]:
        if self.adapters is not None:
            self.adapters.use(adapters)
        if self._takes_positions:
            options = options | {"position_ids": _positions(mask, ids.shape[1])}
        output = self._model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options
        )
        return output.logits, output.past_key_values


def _make_head_compact(model: Any) -> None:
    """Gives the output head its rows without gaps. The last columns of a longer prefill are a slice
    with strides, for which torch multiplies batch by batch, and in half precision on a CPU copies
    the head for each: seconds and gigabytes for what takes milliseconds."""
    head = model.get_output_embeddings()
    if head is not None and _compact not in head._forward_pre_hooks.values():
        head.register_forward_pre_hook(_compact)


def _compact(head: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    # `contiguous` does not care for strides where a dimension is 1; torch's multiplication does.
    return tuple(states.clone(memory_format=torch.contiguous_format) for states in inputs)


def _positions(mask: Tensor, num_new: int) -> Tensor:
    """Each row's own count `(batch, new)`, from 0 at its first token."""
    if num_new == 1:
        return (mask.sum(-1, keepdim=True) - 1).clamp_(min=0)
    return (mask.cumsum(-1) - 1).clamp_(min=0)[:, -num_new:]
