"""Token ids to vectors: one pass of the model for several inputs, padded at the right.

Padding changes no vector: it is masked, positions are counted from the left, and a decoder does not
look ahead. What else an architecture may do with it is found out at load.
"""

from collections.abc import Sequence as Rows
from typing import Any

import torch
from torch import Tensor, nn

from deployments.huggingface.embedding.pooling import pool
from deployments.huggingface.engine import rotary

TokenIds = tuple[int, ...]


class Encoder:
    """A model with what pools its states. `prompt_length` tokens at the left are not pooled."""

    def __init__(
        self, model: Any, head: nn.Module, pooling: Rows[str], prompt_length: int = 0
    ) -> None:
        self.device: torch.device = model.device
        self._model = model
        self._head = head
        self._pooling = pooling
        self._prompt_length = prompt_length
        self._pad_id = _pad_id(model.config)
        self._turns = rotary.install(model) is not None

    def encode(self, inputs: Rows[TokenIds]) -> Tensor:
        """The vectors `(inputs, size)`, on the CPU, in float32. Raises: what the model raises."""
        width = max(map(len, inputs))
        padded = [[*ids, *[self._pad_id] * (width - len(ids))] for ids in inputs]
        lengths = torch.tensor([len(ids) for ids in inputs], device=self.device)
        columns = torch.arange(width, device=self.device)
        mask = (columns < lengths[:, None]).long()
        pooled = mask * (columns >= self._prompt_length)
        tokens = torch.tensor(padded, device=self.device)
        # Left to the model, they are one row's for all.
        options = {"position_ids": columns * mask} if self._turns else {}
        with torch.inference_mode():
            states = self._model(input_ids=tokens, attention_mask=mask, **options).last_hidden_state
            vectors: Tensor = self._head(pool(states, pooled, self._pooling)).cpu()
        return vectors


def _pad_id(config: Any) -> int:
    """RoBERTa and its kin tell positions by it; for others any token will do."""
    pad_id = getattr(config.get_text_config(), "pad_token_id", None)
    return pad_id if isinstance(pad_id, int) and pad_id >= 0 else 0
