"""A tokenizer as the engine sees it: text to ids, ids to text, and the bytes of one token."""

import re
from typing import Any

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
SPACE_MARK = "\u2581"  # SentencePiece writes a space like this


class Vocabulary:
    """Read only, so that the tokenizing thread and the engine's thread may share it."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._fast = getattr(tokenizer, "backend_tokenizer", None)
        self.special_ids = _special_ids(tokenizer)
        self._decoder_state = b""
        self._bytes: dict[int, bytes] = {}  # as they are asked for: some are, again and again
        if self._fast is not None:
            # Either would be changed at the first call otherwise, which a tokenizer in use by
            # another thread answers with "Already borrowed".
            self._fast.no_truncation()
            self._fast.no_padding()
            if self._fast.decoder is not None:
                self._decoder_state = self._fast.decoder.__getstate__()

    def encode(self, text: str, add_special_tokens: bool) -> tuple[int, ...]:
        """Text as token ids."""
        encoded = self.tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)
        return tuple(encoded["input_ids"])

    def decode(self, ids: list[int]) -> str:
        """Token ids as text, without special tokens; U+FFFD for what is no valid UTF-8."""
        if self._fast is not None:
            return str(self._fast.decode(ids, skip_special_tokens=True))
        return str(
            self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def id_of(self, text: str) -> int | None:
        """The token that is this text, if there is one."""
        token = self.tokenizer.convert_tokens_to_ids(text)
        known = token is not None and self.tokenizer.convert_ids_to_tokens(token) == text
        return int(token) if known else None

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for, with its leading space and in parts of characters."""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._bytes_of(token)
        return known

    def _bytes_of(self, token: int) -> bytes:
        piece = self._piece(token)
        if piece is None:  # ids beyond the tokenizer's are padding of the model's output matrix
            return b""
        if token in self.special_ids:
            return str(piece).encode()
        if match := BYTE_TOKEN.fullmatch(piece):
            return bytes([int(match[1], 16)])
        if b'"ByteLevel"' in self._decoder_state and all(c in BYTE_OF_CHAR for c in piece):
            return bytes(BYTE_OF_CHAR[c] for c in piece)
        if SPACE_MARK in piece:
            return str(piece).replace(SPACE_MARK, " ").encode()
        return str(self.tokenizer.convert_tokens_to_string([piece])).encode()

    def _piece(self, token: int) -> str | None:
        try:
            piece: str | None = self.tokenizer.convert_ids_to_tokens(token)
        except IndexError:  # so say those that are SentencePiece's own
            return None
        return piece


def _special_ids(tokenizer: Any) -> frozenset[int]:
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids))


def _byte_of_char() -> dict[str, int]:
    """GPT-2's alphabet of bytes: the printable ones are themselves, the others follow U+0100.

    Source: https://github.com/openai/gpt-2/blob/master/src/encoder.py (bytes_to_unicode).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    chars = {chr(byte): byte for byte in printable}
    return chars | {chr(0x100 + n): byte for n, byte in enumerate(others)}


BYTE_OF_CHAR = _byte_of_char()
