"""An answer as bytes: one JSON body, or a stream of server-sent events."""

import time
from dataclasses import dataclass
from typing import Protocol

import msgspec

from deployments.exchange import EVENT_STREAM, JSON, Tail
from deployments.huggingface.engine.generation import Delta
from deployments.huggingface.protocol.formats import Format, Json

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Identity:
    """What every part of an answer repeats."""

    id: str
    model: str
    created: int

    @classmethod
    def of(cls, id_: str, model: str) -> "Identity":
        """An identity created now."""
        return cls(id_, model, int(time.time()))

    def envelope(self, object_: str, choices: list[Json]) -> Json:
        """The JSON around choices."""
        return {
            "id": self.id,
            "object": object_,
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "system_fingerprint": None,
        }


class Response(Protocol):
    """Takes what choices grow by, gives the bytes to send."""

    content_type: str

    def add(self, delta: Delta) -> bytes:
        """The bytes to send for a piece; none while the answer is being collected."""

    def end(self) -> bytes:
        """The last bytes, once every choice has ended."""

    def tail(self) -> Tail:
        """The tokens used so far."""


class Whole:
    """A JSON body, sent when everything is there."""

    content_type = JSON

    def __init__(self, format_: Format, identity: Identity, num_prompt_tokens: int) -> None:
        self._format = format_
        self._identity = identity
        self._num_prompt_tokens = num_prompt_tokens
        self._num_tokens = 0
        self._choices: dict[int, Json] = {}

    def add(self, delta: Delta) -> bytes:
        """Keeps a choice, which must come in one piece."""
        self._num_tokens += delta.num_tokens
        self._choices[delta.index] = self._format.whole(delta)
        return b""

    def end(self) -> bytes:
        """The whole body."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        body = self._identity.envelope(self._format.whole_object, choices)
        return msgspec.json.encode(body | {"usage": _usage(self.tail())})

    def tail(self) -> Tail:
        """The tokens used so far."""
        return Tail(self._num_prompt_tokens, self._num_tokens)


class Stream:
    """Server-sent events. With `include_usage` each has a `usage`, null in all but the last."""

    content_type = EVENT_STREAM

    def __init__(
        self, format_: Format, identity: Identity, num_prompt_tokens: int, include_usage: bool
    ) -> None:
        self._format = format_
        self._identity = identity
        self._num_prompt_tokens = num_prompt_tokens
        self._include_usage = include_usage
        self._num_tokens = 0
        self._open: set[int] = set()

    def add(self, delta: Delta) -> bytes:
        """The events of a piece, with what begins the choice before its first one."""
        self._num_tokens += delta.num_tokens
        choices = self._format.chunks(delta)
        if delta.index not in self._open:
            self._open.add(delta.index)
            choices = self._format.opening(delta) + choices
        return b"".join(self._event([choice], None) for choice in choices)

    def end(self) -> bytes:
        """The usage, if it was asked for, and the mark that the stream is whole."""
        if not self._include_usage:
            return DONE
        return self._event([], _usage(self.tail())) + DONE

    def tail(self) -> Tail:
        """The tokens used so far."""
        return Tail(self._num_prompt_tokens, self._num_tokens)

    def _event(self, choices: list[Json], usage: Json | None) -> bytes:
        chunk = self._identity.envelope(self._format.chunk_object, choices)
        if self._include_usage:
            chunk["usage"] = usage
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def _usage(tail: Tail) -> Json:
    return {
        "prompt_tokens": tail.prompt_tokens,
        "completion_tokens": tail.completion_tokens,
        "total_tokens": tail.prompt_tokens + tail.completion_tokens,
    }
