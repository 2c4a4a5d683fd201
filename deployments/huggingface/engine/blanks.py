"""Blanks between the parts of JSON: any layout is allowed, but a model may not go on with them.

JSON allows any number in a row, and a weak model that is made to write it likes nothing better: its
answer would be blank to the last of `max_tokens`. llguidance 1.7 cannot bound them, since it takes
its `whitespace_pattern` as often as it comes; to allow none would forbid indentation.
"""

from collections.abc import Sequence as Tokens
from typing import Any

MAX_BLANKS = 64  # a line's end and 15 levels of indentation
BLANKS = b" \t\r\n"


class Blanks:
    """What the tokens of a vocabulary, given by their bytes, have of blanks."""

    def __init__(self, tokens: Tokens[bytes]) -> None:
        import numpy

        self._counts = [len(token) - len(token.rstrip(BLANKS)) for token in tokens]
        self._whole = [0 < count == len(t) for count, t in zip(self._counts, tokens, strict=True)]
        begins = [token[:1] in (b" ", b"\t", b"\r", b"\n") for token in tokens]
        begins += [False] * (-len(tokens) % 32)
        packed = numpy.packbits(numpy.array(begins, dtype=bool), bitorder="little")
        self._others = ~packed.view("<i4")
        self._newline = next((t for t, token in enumerate(tokens) if token == b"\n"), None)

    def count(self, token: int, num_before: int) -> int:
        """How many there are in a row at the end of a text that goes on by a token."""
        if token >= len(self._counts):
            return 0
        return self._counts[token] + (num_before if self._whole[token] else 0)

    def may_be_forbidden(self, state: Any) -> bool:
        """Whether the text is between parts. Inside a string of JSON no line can end."""
        if self._newline is None or state.is_error():
            return False
        return bool(state.validate_tokens([self._newline]))

    def forbid(self, bits: Any) -> None:
        """Takes from a mask `(words,)`, in place, the tokens that begin with a blank; not if there
        are no others."""
        left = bits & self._others[: len(bits)]
        if left.any():
            bits[:] = left
