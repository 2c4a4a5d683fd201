"""What EchoBackend is asked to do: its script is the prompt.

It answers with the last message, or the prompt, word by word. Words in double brackets are
directions, not text:

    [[wait]]        stop until cancelled
    [[file=NAME]]   stop until the folder for temporary files has one of that name
    [[sleep=0.01]]  wait that many seconds before each further word
    [[fail]]        raise BackendUnavailable here: before the first word, an error status
    [[overload]]    raise BackendOverloaded before the answer begins
    [[crash]]       raise an error that nobody foresaw, with a secret in its text
    [[die]]         end the process at once
    [[pid]]         the process id, as a word
"""

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.errors import (
    BackendOverloaded,
    BackendUnavailable,
    InvalidRequest,
    UnsupportedEndpoint,
)
from deployments.stops import StopStrings

DIRECTION = re.compile(r"\[\[(\w+)(?:=([\w.]+))?\]\]")
LOOK_EVERY_S = 0.2
SECRET = "sk-a-secret-that-must-not-leak"


@dataclass(slots=True)
class Script:
    """What one request asks of the echo: words, stop strings, and what its directions say."""

    prompt: str
    stops: list[str] = field(default_factory=list)
    max_words: int | None = None
    pause_s: float = 0.0

    def words(self) -> Iterator[tuple[str, str | None]]:
        """Each piece of the prompt as (name, value): name "" for text."""
        position = 0
        for match in DIRECTION.finditer(self.prompt):
            yield from (("", word) for word in split_words(self.prompt[position : match.start()]))
            yield match[1], match[2]
            position = match.end()
        yield from (("", word) for word in split_words(self.prompt[position:]))


def split_words(text: str) -> list[str]:
    """The words of a text, each with the space before it."""
    return re.findall(r"\s*\S+", text)


async def play(script: Script) -> AsyncIterator[str]:
    """The words of the answer, at their time; a stop string ends it, and is not shown."""
    stops, said = StopStrings(tuple(script.stops)), 0
    for name, value in script.words():
        word = await _direct(name, value, script) if name else value
        if word is None:
            continue
        if said == script.max_words:
            break
        said += 1
        if text := stops.add(word):
            yield text
        if stops.found:
            return
        await asyncio.sleep(script.pause_s)
    if held := stops.flush():
        yield held


async def _direct(name: str, value: str | None, script: Script) -> str | None:
    if name == "wait":
        await asyncio.Event().wait()
    elif name == "file":
        sign = Path(tempfile.gettempdir(), value or "")
        while not sign.exists():  # noqa: ASYNC110, ASYNC240 - a file tells nobody
            await asyncio.sleep(LOOK_EVERY_S)
    elif name == "sleep":
        script.pause_s = float(value or 0)
    elif name == "fail":
        raise BackendUnavailable("The echo was asked to fail.")
    elif name == "overload":
        raise BackendOverloaded("The echo was asked to be overloaded.", retry_after_s=7)
    elif name == "crash":
        raise RuntimeError(f"the echo was asked to crash with {SECRET}")
    elif name == "die":
        os._exit(1)
    elif name == "pid":
        return f" {os.getpid()}"
    return None


def script_from_body(path: str, body: dict[str, Any]) -> Script:
    """What a request asks for. Raises: UnsupportedEndpoint, InvalidRequest."""
    if path == "/v1/chat/completions":
        messages = body.get("messages") or [{}]
        prompt = messages[-1].get("content") or ""
    elif path == "/v1/completions":
        prompt = body.get("prompt") or ""
    else:
        raise UnsupportedEndpoint(f"The echo backend does not answer {path}.")
    if not isinstance(prompt, str):
        raise InvalidRequest("The echo backend takes text only.", param="messages")
    stop = body.get("stop") or []
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    return Script(prompt, [stop] if isinstance(stop, str) else list(stop), limit)
