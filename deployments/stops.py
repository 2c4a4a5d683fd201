"""Stop strings: found across the borders of tokens, and never shown, not even in part."""

from collections.abc import Iterable
from typing import Any


def stop_ids(tokenizer: Any, strings: Iterable[str], ids: Iterable[int]) -> frozenset[int]:
    """`ids`, and those of the strings that are tokens of their own: such never come as text.

    Ids that the tokenizer lacks are kept: the model may still have them.
    """
    added = tokenizer.get_added_vocab()
    return frozenset(ids) | {int(added[string]) for string in strings if string in added}


class StopStrings:
    """Lets text through up to the first stop string, keeping back what might begin one."""

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = strings
        self._held = ""
        self.found = False

    def add(self, text: str, armed: bool = True) -> str:
        """The text that is now certain not to belong to a stop string.

        `armed` False lets whole stop strings through (`min_tokens` is not reached yet). Once
        `found` is set, nothing more comes.
        """
        if not self._strings:
            return text
        text = self._held + text
        start = self._first(text) if armed else None
        if start is not None:
            self.found = True
            self._held = ""
            return text[:start]
        held = self._num_held(text)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """What was kept back, for an answer that ends without a stop string."""
        held, self._held = self._held, ""
        return held

    def _first(self, text: str) -> int | None:
        """Where the stop string begins that would be complete first, text coming by character."""
        found = [(at + len(s), at) for s in self._strings if (at := text.find(s)) >= 0]
        return min(found)[1] if found else None

    def _num_held(self, text: str) -> int:
        """The length of the longest end of `text` that begins a stop string."""
        return max(_overlap(text, string) for string in self._strings)


def _overlap(text: str, string: str) -> int:
    """The length of the longest end of `text` that is a beginning of `string`, not all of it."""
    longest = min(len(text), len(string) - 1)
    return next((n for n in range(longest, 0, -1) if string.startswith(text[-n:])), 0)
