"""EchoBackend: a real backend without a model, scripted by its prompt.

It answers with the last message, or the prompt, word by word. Words in double brackets are
directions, not text:

    [[wait]]        stop until cancelled
    [[sleep=0.01]]  wait that many seconds before each further word
    [[fail]]        raise BackendUnavailable here: before the first word, an error status
    [[overload]]    raise BackendOverloaded before the answer begins
    [[crash]]       raise an error that nobody foresaw, with a secret in its text
    [[die]]         end the process at once
    [[pid]]         the process id, as a word

It ships with the product: what is built around backends is tested with it, without patches.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deployments.body import parse_object
from deployments.config import EchoConfig
from deployments.errors import (
    BackendOverloaded,
    BackendUnavailable,
    InvalidRequest,
    UnsupportedEndpoint,
)
from deployments.exchange import EVENT_STREAM, Exchange, Head, Item, ModelCard, Tail

DIRECTION = re.compile(r"\[\[(\w+)(?:=([\w.]+))?\]\]")
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
            yield from (("", word) for word in _split(self.prompt[position : match.start()]))
            yield match[1], match[2]
            position = match.end()
        yield from (("", word) for word in _split(self.prompt[position:]))


def _split(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


class EchoBackend:
    """Answers with what it was asked; one request or many at a time."""

    def __init__(self, model_id: str, config: EchoConfig) -> None:
        self._model_id = model_id
        self._config = config
        self._num_running = 0

    @property
    def num_running(self) -> int:
        return self._num_running

    async def start(self) -> None:
        await asyncio.sleep(self._config.start_delay_s)

    async def stop(self) -> None:
        pass

    async def check_health(self) -> None:
        pass

    def card(self) -> ModelCard:
        return ModelCard(backend="echo", models=(self._model_id,))

    async def exchange(self, request: Exchange) -> AsyncGenerator[Item, None]:
        self._num_running += 1
        try:
            async for item in self._answer(request):
                yield item
        finally:
            self._num_running -= 1

    async def _answer(self, request: Exchange) -> AsyncGenerator[Item, None]:
        body = parse_object(request.body)
        answer = Answer(request, body)
        stream = body.get("stream") is True
        words = 0
        async for word in play(script_from_body(request.path, body)):
            words += 1
            if stream:
                if words == 1:
                    yield Head(content_type=EVENT_STREAM)
                    yield answer.opening()
                yield answer.chunk(word)
            else:
                answer.text += word
        usage = (len(_split(script_from_body(request.path, body).prompt)), words)
        if stream:
            if words == 0:
                yield Head(content_type=EVENT_STREAM)
            yield answer.closing(*usage)
        else:
            yield Head()
            yield answer.whole(*usage)
        yield Tail(*usage)


async def play(script: Script) -> AsyncIterator[str]:
    """The words of the answer, at their time."""
    said = 0
    for name, value in script.words():
        if name:
            word = await _direct(name, value, script)
        else:
            word = value
        if word is None:
            continue
        if said == script.max_words or any(stop in word for stop in script.stops):
            return
        said += 1
        yield word
        await asyncio.sleep(script.pause_s)


async def _direct(name: str, value: str | None, script: Script) -> str | None:
    if name == "wait":
        await asyncio.Event().wait()
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


class Answer:
    """OpenAI's shapes around the echo's words."""

    def __init__(self, request: Exchange, body: dict[str, Any]) -> None:
        self._chat = request.path == "/v1/chat/completions"
        self._include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._kind = "chat.completion" if self._chat else "text_completion"
        self._id = request.request_id
        self._model = request.model
        self._created = int(time.time())
        self.text = ""

    def opening(self) -> bytes:
        """The first chunk of a chat stream: the role."""
        return self._event({"role": "assistant", "content": ""}, "") if self._chat else b""

    def chunk(self, word: str) -> bytes:
        return self._event({"content": word}, word)

    def closing(self, prompt_tokens: int, completion_tokens: int) -> bytes:
        last = self._event({}, "", "stop")
        if self._include_usage:
            usage = _usage(prompt_tokens, completion_tokens)
            last += _sse(self._envelope([], usage=usage, streamed=True))
        return last + b"data: [DONE]\n\n"

    def whole(self, prompt_tokens: int, completion_tokens: int) -> bytes:
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": self.text, "refusal": None}
        else:
            choice["text"] = self.text
        usage = _usage(prompt_tokens, completion_tokens)
        return msgspec.json.encode(self._envelope([choice], usage=usage))

    def _event(self, delta: dict[str, Any], text: str, finish: str | None = None) -> bytes:
        body = {"delta": delta} if self._chat else {"text": text}
        choice = {"index": 0, "finish_reason": finish, "logprobs": None, **body}
        return _sse(self._envelope([choice], streamed=True))

    def _envelope(
        self, choices: list[dict[str, Any]], streamed: bool = False, **more: Any
    ) -> dict[str, Any]:
        kind = f"{self._kind}.chunk" if streamed and self._chat else self._kind
        head = {"id": self._id, "object": kind, "created": self._created, "model": self._model}
        return {**head, "choices": choices, **more}


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _sse(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
