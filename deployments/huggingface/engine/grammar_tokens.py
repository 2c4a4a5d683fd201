"""A vocabulary as llguidance takes it: the bytes of its tokens, and which of them end an answer."""

from typing import Any

from deployments.huggingface.engine.vocabulary import Vocabulary


class TokenBytes:
    """A vocabulary in the form that llguidance asks for."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, vocab_size: int, eos_ids: frozenset[int]) -> None:
        self.tokens = [vocabulary.token_bytes(token) for token in range(vocab_size)]
        self.special_token_ids = [i for i in vocabulary.special_ids if i < vocab_size]
        self.eos_token_ids = [i for i in sorted(eos_ids) if i < vocab_size]
        if not self.eos_token_ids:  # it insists on one; no logits will ever be there for this
            self.eos_token_ids = [vocab_size]
            self.tokens.append(b"")
        self.eos_token_id = self.eos_token_ids[0]

    def __call__(self, text: bytes | str) -> list[int]:
        """Would be needed for forced tokens only."""
        raise NotImplementedError


def llguidance_tokenizer(tokens: TokenBytes) -> Any:
    """llguidance's own object."""
    from llguidance import LLTokenizer, TokenizerWrapper

    # Slices would make some masks faster, 15 microseconds for 40, and this twice as slow.
    return LLTokenizer(TokenizerWrapper(tokens), eos_token=tokens.eos_token_ids, slices=[])
