"""What the echo must answer, to the byte: one answer is judged, and named by how it fell short."""

import json
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.echo_script import DIRECTION, split_words

DONE = b"data: [DONE]"
COMMENT = b": warming"  # a client that waits for a model is told so


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, its nonce in every word of it: an answer that is another's shows at once."""

    model: str
    stream: bool
    num_words: int
    pause_s: float
    nonce: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def body(self) -> dict[str, Any]:
        direction = f"[[sleep={self.pause_s}]] " if self.pause_s else ""
        words = " ".join(f"{self.nonce}-{i}" for i in range(self.num_words))
        messages = [{"role": "user", "content": direction + words}]
        more = {"stream_options": {"include_usage": True}} if self.stream else {}
        return {"model": self.model, "messages": messages, "stream": self.stream, **more}

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][0]["content"])

    @property
    def words(self) -> list[str]:
        """The words of the answer, each with the space before it."""
        return [w for text in DIRECTION.split(self.prompt)[::3] for w in split_words(text)]

    @property
    def usage(self) -> dict[str, int]:
        prompt, completion = len(split_words(self.prompt)), self.num_words
        total = prompt + completion
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": total,
        }


@dataclass(frozen=True, slots=True)
class Held(Asked):
    """A stream that stops after its first word, and goes on when there is its sign."""

    @property
    def sign(self) -> Path:
        """A file, of any content."""
        return Path(tempfile.gettempdir(), self.nonce)

    @property
    def prompt(self) -> str:
        first, *words = [f"{self.nonce}-{i}" for i in range(self.num_words)]
        return f"{first} [[file={self.nonce}]] {' '.join(words)}"

    @property
    def body(self) -> dict[str, Any]:
        messages = [{"role": "user", "content": self.prompt}]
        more = {"stream": True, "stream_options": {"include_usage": True}}
        return {"model": self.model, "messages": messages, **more}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended.

    `kind` is "good", or: "refused" with an error status; "broken" off by an error event, as a
    stream must be that cannot go on; "cut", where the connection ended before the answer did;
    "truncated", where bytes are missing at the end and nothing says so; "wrong", where they are
    other bytes; "unreachable" without any.
    """

    asked: Asked
    kind: str
    detail: str = ""

    def __str__(self) -> str:
        how = "stream" if self.asked.stream else "whole"
        return f"{self.kind} ({how}, {self.asked.model}, {self.asked.nonce}): {self.detail}"


Judge = Callable[[Asked, int, bytes, bool], Outcome]


def judged(asked: Asked, status: int, body: bytes, complete: bool) -> Outcome:
    """An answer as it came; `complete` if HTTP says that nothing of it is missing."""
    if status != 200:
        return Outcome(asked, "refused", f"{status} {body[:200]!r}")
    try:
        if asked.stream:
            return _stream(asked, body, complete)
        if not complete:
            return Outcome(asked, "cut", f"after {len(body)} bytes")
        return _compared(asked, [_without_time(json.loads(body))], [_whole(asked)])
    except ValueError:
        return Outcome(asked, "wrong", f"no JSON: {body[:200]!r}")


def _stream(asked: Asked, body: bytes, complete: bool) -> Outcome:
    *frames, rest = body.split(b"\n\n")
    frames = [frame for frame in frames if not frame.startswith(COMMENT)]
    if any(frame.startswith(b'data: {"error"') for frame in frames):
        return Outcome(asked, "broken", frames[-1].decode()[:200])
    if not complete or rest or DONE not in frames[-1:]:
        kind = "truncated" if complete else "cut"
        return Outcome(asked, kind, f"after {len(frames)} events: {body[-80:]!r}")
    events = [json.loads(frame.removeprefix(b"data: ")) for frame in frames[:-1]]
    return _compared(asked, [_without_time(event) for event in events], list(_events(asked)))


def _compared(asked: Asked, found: list[Any], expected: list[Any]) -> Outcome:
    for position, (one, other) in enumerate(zip(found, expected, strict=False)):
        if one != other:
            return Outcome(asked, "wrong", f"item {position} is {one}, not {other}")
    if len(found) != len(expected):
        return Outcome(asked, "wrong", f"{len(found)} items, not {len(expected)}")
    return Outcome(asked, "good")


def _without_time(event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in {"created"}}


def _whole(asked: Asked) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(asked.words), "refusal": None}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}
    return {**_envelope(asked, "chat.completion"), "choices": [choice], "usage": asked.usage}


def _events(asked: Asked) -> Iterator[dict[str, Any]]:
    envelope = _envelope(asked, "chat.completion.chunk")
    deltas = [{"role": "assistant", "content": ""}, *({"content": w} for w in asked.words), {}]
    for position, delta in enumerate(deltas):
        finish = "stop" if position == len(deltas) - 1 else None
        choice = {"index": 0, "finish_reason": finish, "logprobs": None, "delta": delta}
        yield {**envelope, "choices": [choice]}
    yield {**envelope, "choices": [], "usage": asked.usage}


def _envelope(asked: Asked, kind: str) -> dict[str, Any]:
    """The request id is the client's own, which the echo gives its answers."""
    return {"id": asked.nonce, "object": kind, "model": asked.model}
