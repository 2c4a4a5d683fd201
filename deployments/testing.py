"""EchoBackend: a real backend without a model, scripted by its prompt (see echo_script.py).

It ships with the product: what is built around backends is tested with it, without patches.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from deployments.body import parse_object
from deployments.config import EchoConfig
from deployments.echo_script import play, script_from_body, split_words
from deployments.exchange import EVENT_STREAM, Exchange, Head, Item, ModelCard, Tail
from deployments.load import Load
from deployments.progress import Progress, Report, Shard, unreported


class EchoBackend:
    """Answers with what it was asked; one request or many at a time."""

    def __init__(self, model_id: str, config: EchoConfig) -> None:
        self._model_id = model_id
        self._config = config
        self._num_running = 0

    @property
    def num_running(self) -> int:
        return self._num_running

    def load(self) -> Load:
        return Load(self._num_running)

    async def start(self, report: Report = unreported) -> None:
        report(Progress("loading weights", (Shard("echo", 1, 2), Shard("narcissus", 0, 2))))
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
        usage = (len(split_words(script_from_body(request.path, body).prompt)), words)
        if stream:
            if words == 0:
                yield Head(content_type=EVENT_STREAM)
            yield answer.closing(*usage)
        else:
            yield Head()
            yield answer.whole(*usage)
        yield Tail(*usage)


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
