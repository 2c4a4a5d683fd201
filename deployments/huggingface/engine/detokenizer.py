"""Tokens to text, one at a time, at a constant cost and never in parts of a character.

Each piece is the difference between two decodings of the last few tokens: one token alone does not
tell whether a space or half a character belongs to it. This is the method of vLLM and TGI. It is
not tokenizers' DecodeStream, which raises where a byte token turns out to be part of no character.
"""

from deployments.huggingface.engine.vocabulary import Vocabulary

NUM_CONTEXT_TOKENS = 5
# A character has at most four bytes, so what is still broken after as many tokens stays broken.
MAX_HELD_TOKENS = 8
REPLACEMENT = "\ufffd"


class Detokenizer:
    """The text of one answer. `prompt_ids` give the context of its first token; `shown_ids` are the
    special tokens that have a text."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt_ids: tuple[int, ...],
        shown_ids: frozenset[int] = frozenset(),
    ) -> None:
        self._vocabulary = vocabulary
        self._shown_ids = shown_ids
        recent = prompt_ids[-2 * NUM_CONTEXT_TOKENS :]
        ordinary = [token for token in recent if token not in vocabulary.special_ids]
        self._ids = ordinary[-NUM_CONTEXT_TOKENS:]
        self._num_read = len(self._ids)
        self._read = vocabulary.decode(self._ids)

    def add(self, token: int) -> str:
        """The text that `token` completes: none for a special token or an incomplete character."""
        if token in self._shown_ids:
            return self._vocabulary.token_bytes(token).decode()
        if token in self._vocabulary.special_ids:
            return ""
        self._ids.append(token)
        text = self._vocabulary.decode(self._ids)
        incomplete = text.endswith(REPLACEMENT) or len(text) <= len(self._read)
        if incomplete and len(self._ids) - self._num_read < MAX_HELD_TOKENS:
            return ""
        new = text[len(self._read) :]
        del self._ids[: self._num_read]
        self._num_read = len(self._ids)
        self._read = self._vocabulary.decode(self._ids)
        return new
