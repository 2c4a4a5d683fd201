"""A way to start a backend and ask it, for the tests."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deployments.config import HuggingFaceConfig
from deployments.exchange import Exchange, Head, Tail
from deployments.huggingface.backend import HuggingFaceBackend

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RECITED = "Hi, y\u00f6u\U0001f642STP"  # by the reciter, to any chat


@dataclass(frozen=True)
class Got:
    """A whole answer."""

    head: Head
    pieces: list[bytes]
    tail: Tail

    @property
    def body(self) -> Any:
        """The JSON body."""
        return json.loads(b"".join(self.pieces))

    @property
    def events(self) -> list[Any]:
        """The events of a stream, which must be whole."""
        frames = b"".join(self.pieces).decode().split("\n\n")
        assert frames[-2:] == ["data: [DONE]", ""]
        return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


def exchange_of(path: str, deadline_s: float | None = None, **body: Any) -> Exchange:
    """A request for a model that clients know as "tiny"."""
    if path == CHAT:
        body = {"messages": [{"role": "user", "content": "Hello"}]} | body
    body = {"model": "alias"} | body
    return Exchange(path, json.dumps(body).encode(), "r1", "tiny", deadline_s)


async def ask(backend: HuggingFaceBackend, path: str, **body: Any) -> Got:
    """The whole answer to one request."""
    items = [item async for item in backend.exchange(exchange_of(path, **body))]
    head, *pieces, tail = items
    assert isinstance(head, Head)
    assert isinstance(tail, Tail)
    return Got(head, pieces, tail)


async def embedded(backend: HuggingFaceBackend, inputs: Any, **fields: Any) -> torch.Tensor:
    """The vectors of inputs, in their order."""
    got = await ask(backend, EMBEDDINGS, input=inputs, **fields)
    assert [item["index"] for item in got.body["data"]] == list(range(len(got.body["data"])))
    return torch.tensor([item["embedding"] for item in got.body["data"]])


@asynccontextmanager
async def started(checkpoint: Path, **settings: Any) -> AsyncIterator[HuggingFaceBackend]:
    """A backend that serves a checkpoint."""
    backend = HuggingFaceBackend("tiny", configured(checkpoint, **settings))
    await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()


def configured(checkpoint: Path | str, **settings: Any) -> HuggingFaceConfig:
    """The settings of a backend for a checkpoint."""
    return HuggingFaceConfig(checkpoint=str(checkpoint), dtype="float32", **settings)
