"""Text that comes in pieces, read by generators that yield where they have to wait for more."""

import json
import re
from collections.abc import Generator
from typing import TypeVar

from deployments.huggingface.protocol.tools.brackets import Brackets

Result = TypeVar("Result")
Reading = Generator[None, None, Result]
STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
SCALAR = re.compile(r"[^\s,}\]]*")


class Malformed(Exception):
    """The text is not what was expected."""


class Text:
    """Begins with what has not been taken off its front."""

    def __init__(self) -> None:
        self.ended = False
        self._text = ""
        self._at = 0

    def add(self, text: str) -> None:
        """Takes more."""
        self._text += text

    def take(self, length: int) -> str:
        """Takes this much off the front."""
        text, self._text, self._at = self._text[:length], self._text[length:], 0
        return text

    @property
    def num_read(self) -> int:
        """How far it has been read."""
        return self._at

    def take_before(self, marker: str) -> tuple[str, bool]:
        """Takes what is certain to stand before `marker`, and whether that comes next."""
        at = self._text.find(marker)
        if at >= 0:
            return self.take(at), True
        held = 0 if self.ended else _overlap(self._text, marker)
        return self.take(len(self._text) - held), False

    def take_all(self) -> str:
        """Takes what there is."""
        return self.take(len(self._text))

    def peek(self) -> Reading[str]:
        """The next character; none at the end."""
        while self._at == len(self._text) and not self.ended:
            yield
        return self._text[self._at : self._at + 1]

    def skip_space(self) -> Reading[None]:
        """Goes on to the next character that is no space."""
        while (yield from self.peek()).isspace():
            self._at += 1

    def read(self) -> str:
        """Reads all that there is."""
        text, self._at = self._text[self._at :], len(self._text)
        return text

    def is_next(self, literal: str) -> Reading[bool]:
        """Whether this comes next."""
        while not self.ended and self._may_become(literal):
            yield
        return self._text.startswith(literal, self._at)

    def is_cut(self, literal: str) -> bool:
        """Whether the text has ended within this, or right before it."""
        return self.ended and literal.startswith(self._text[self._at :])

    def expect(self, literal: str) -> Reading[None]:
        """Reads this. Raises: Malformed."""
        if not (yield from self.is_next(literal)):
            raise Malformed
        self._at += len(literal)

    def one_of(self, signs: str) -> Reading[str]:
        """Reads one of these characters, after any space. Raises: Malformed."""
        yield from self.skip_space()
        sign = yield from self.peek()
        if not sign or sign not in signs:
            raise Malformed
        self._at += 1
        return sign

    def until(self, *literals: str) -> Reading[str]:
        """Reads all before the first of these. Raises: Malformed."""
        while not (found := self._first_of(literals)):
            yield from self.wait()
        text, self._at = self._text[self._at : found - 1], found - 1
        return text

    def string(self) -> Reading[str]:
        """Reads a JSON string; returns what it means. Raises: Malformed."""
        if (yield from self.peek()) != '"':
            raise Malformed
        while not (match := STRING.match(self._text, self._at)):
            yield from self.wait()
        self._at = match.end()
        try:
            return str(json.loads(match[0]))
        except ValueError:
            raise Malformed from None

    def nested(self) -> Reading[str]:
        """Reads a JSON object or array; returns it as it is written. Raises: Malformed."""
        text = ""
        brackets = Brackets()
        while True:
            piece, closed = self.more_of(brackets)
            text += piece
            if closed:
                return text
            yield from self.wait()

    def more_of(self, brackets: Brackets) -> tuple[str, bool]:
        """Reads on in an object or array; returns what there is of it, and whether it is closed."""
        text = self._text[self._at :]
        length = brackets.feed(text)
        self._at += len(text) if length is None else length
        return text[:length], length is not None

    def value(self) -> Reading[str]:
        """Reads any JSON value; returns it as it is written. Raises: Malformed."""
        first = yield from self.peek()
        if first in ("{", "["):
            return (yield from self.nested())
        start = self._at
        if first == '"':
            yield from self.string()
        else:
            yield from self._scalar()
        return self._text[start : self._at]

    def wait(self) -> Reading[None]:
        """Returns when there is more. Raises: Malformed at the end."""
        if self.ended:
            raise Malformed
        yield

    def _scalar(self) -> Reading[None]:
        while (match := SCALAR.match(self._text, self._at)) and match.end() == len(self._text):
            yield from self.wait()
        assert match is not None  # it matches nothing at all, too
        self._at = match.end()

    def _first_of(self, literals: tuple[str, ...]) -> int:
        """One more than where the first of them begins; 0 if there is none."""
        found = (self._text.find(literal, self._at) for literal in literals)
        return min((at + 1 for at in found if at >= 0), default=0)

    def _may_become(self, literal: str) -> bool:
        there = self._text[self._at :]
        return len(there) < len(literal) and literal.startswith(there)


def _overlap(text: str, marker: str) -> int:
    """The length of the longest end of `text` that is a beginning of `marker`."""
    longest = min(len(text), len(marker) - 1)
    return next((n for n in range(longest, 0, -1) if marker.startswith(text[-n:])), 0)
