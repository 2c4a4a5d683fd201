"""Tells tool calls from content in the text of one answer, as it comes or whole.

What turns out to be no call is given back as content.
"""

import re
from abc import ABC, abstractmethod

from deployments.huggingface.protocol.tools.brackets import Brackets
from deployments.huggingface.protocol.tools.pieces import Arguments, Begin, Content, End, Piece
from deployments.huggingface.protocol.tools.text import Malformed, Reading, Text

NAME = re.compile(r"[\w.-]+")
ARGUMENTS = ("arguments", "parameters")


class Reader(ABC):
    """Reads one answer. `names` are the tools offered; calls beyond `max_calls` are left out."""

    def __init__(self, names: frozenset[str], max_calls: int | None = None) -> None:
        self.names = names
        self.text = Text()
        self._max_calls = max_calls
        self._num_calls = 0
        self._in_call = False
        self._num_told = 0  # how much of what has been read was given as a call
        self._space = ""  # after content: it is left out before a call
        self._pieces: list[Piece] = []
        self._reading = self.read()

    def feed(self, text: str) -> list[Piece]:
        """What is certain after more text."""
        self.text.add(text)
        next(self._reading, None)
        pieces, self._pieces = self._pieces, []
        return pieces

    def finish(self) -> list[Piece]:
        """What is left at the end of the text."""
        self.text.ended = True
        pieces = self.feed("")
        if self._space and not self._num_calls:
            pieces.append(Content(self._space))
        return pieces

    @abstractmethod
    def read(self) -> Reading[None]:
        """Reads the whole answer."""

    def attempt(self, reading: Reading[None]) -> Reading[bool]:
        """Whether what follows is what `reading` expects. If not, it is content."""
        try:
            yield from reading
        except Malformed:
            self.end(well_formed=False)
            return False
        self.end(well_formed=True)
        return True

    def content_until(self, marker: str) -> Reading[bool]:
        """Gives all before `marker` as content; False if it never comes."""
        while True:
            text, found = self.text.take_before(marker)
            self.say(text)
            if found or self.text.ended:
                return found
            yield

    def rest(self) -> Reading[None]:
        """Gives all that follows as content."""
        self.say(self.text.take_all())
        while not self.text.ended:
            yield
            self.say(self.text.take_all())

    def call(self) -> Reading[None]:
        """A call as JSON, `{"name": ..., "arguments": {...}}`, in any order, with other keys."""
        name, early = "", ""
        yield from self.text.expect("{")
        while True:
            key = yield from self._key()
            if key == "name":
                name = yield from self.text.string()
                if early:
                    self.begin(name, early)
            elif key in ARGUMENTS and name:
                yield from self.arguments(name)
            elif key in ARGUMENTS:
                early = yield from self.text.value()
            else:
                yield from self.text.value()
            if (yield from self.text.one_of(",}")) == "}":
                break
        if not self._in_call:
            raise Malformed

    def arguments(self, name: str) -> Reading[None]:
        """The arguments of a call, given as they come: an object, or one in a string."""
        first = yield from self.text.peek()
        if first == '"':
            arguments = yield from self.text.string()
            self.begin(name, arguments)
        elif first == "{":
            self.begin(name)
            yield from self._arguments()
        else:
            raise Malformed

    def check_name(self, name: str) -> None:
        """Raises: Malformed for what is no name. Where calls are marked, any name can be called."""
        if not NAME.fullmatch(name):
            raise Malformed

    def begin(self, name: str, arguments: str = "") -> None:
        """From here it is a call. Raises: Malformed."""
        self.check_name(name)
        if self._in_call:
            raise Malformed
        self._in_call = True
        self._num_calls += 1
        self._space = ""
        self._give(Begin(name))
        if arguments:
            self._give(Arguments(arguments))
        self._num_told = self.text.num_read

    def end(self, well_formed: bool) -> None:
        """What has been read since the last end was a call, or signs around calls, or neither."""
        raw = self.text.take(self.text.num_read)
        if self._in_call:
            self._give(End(raw, raw[self._num_told :], well_formed))
        elif not well_formed:
            self.say(raw)
        self._in_call = False

    def say(self, text: str) -> None:
        """Gives content."""
        text = self._space + text
        said = text.rstrip()
        self._space = text[len(said) :]
        if said:
            self._pieces.append(Content(said))

    def _key(self) -> Reading[str]:
        yield from self.text.skip_space()
        key = yield from self.text.string()
        yield from self.text.one_of(":")
        yield from self.text.skip_space()
        return key

    def _arguments(self) -> Reading[None]:
        brackets = Brackets()
        while True:
            text, closed = self.text.more_of(brackets)
            if text:
                self._give(Arguments(text))
            self._num_told = self.text.num_read
            if closed:
                return
            yield from self.text.wait()

    def _give(self, piece: Piece) -> None:
        if self._max_calls is None or self._num_calls <= self._max_calls:
            self._pieces.append(piece)
