"""Where a JSON object or array ends, for text that comes in pieces."""


class Brackets:
    """Counts brackets outside of strings. Reads each character once."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def feed(self, text: str) -> int | None:
        """How much of `text` there is up to the bracket that closes the first; None if all."""
        for index, char in enumerate(text):
            if self._quoted:
                self._read_quoted(char)
            elif char == '"':
                self._quoted = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if not self._depth:
                    return index + 1
        return None

    def _read_quoted(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._quoted = False
