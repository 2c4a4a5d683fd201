"""The log probabilities of prompts' own tokens, from the logits of their prefill."""

from torch import Tensor

from deployments.huggingface.engine.generation import Score
from deployments.huggingface.engine.sampling import with_logprobs

MAX_SLICE_LOGITS = 2**24  # at a time in float32


class PromptScores:
    """Scores of prompts `ids` `(prompts, columns)`, padded at their left.

    With each token come the `num_top` likeliest in its place.
    """

    def __init__(self, ids: Tensor, num_top: int) -> None:
        self._ids = ids
        self._num_top = num_top
        self._scores: list[list[Score]] = [[] for _ in ids]

    def add(self, logits: Tensor, start: int) -> None:
        """Takes the logits `(prompts, new, vocab)` of the next columns, from `start` on."""
        following = self._ids[:, start + 1 : start + 1 + logits.shape[1]]
        step = max(1, MAX_SLICE_LOGITS // (logits.shape[0] * logits.shape[2]))
        for at in range(0, following.shape[1], step):
            self._add(logits[:, at : at + step], following[:, at : at + step])

    def of(self, prompt: int, num_tokens: int) -> tuple[Score, ...]:
        """The scores of a prompt's tokens, all but the first, which follows nothing."""
        scores = self._scores[prompt]
        return tuple(scores[len(scores) - num_tokens + 1 :])

    def _add(self, logits: Tensor, following: Tensor) -> None:
        """The last of the columns may be followed by none."""
        raw = logits[:, : following.shape[1]].float().flatten(0, 1)
        found = with_logprobs(following.flatten(), raw, [self._num_top] * len(raw))
        scores = [(sampled.logprob, sampled.top) for sampled in found]
        width = following.shape[1]
        for prompt, known in enumerate(self._scores):
            known.extend(scores[prompt * width : (prompt + 1) * width])
