"""A client that leaves frees the backend's slot within a second, through the whole stack."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.integration.conftest import Roundhouse
from tests.polling import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

ECHOING = {"echo": ("echo", "echo"), "gpt-4": ("api", "api")}
COUNTING = {"demo": ("demo", "vllm"), "demo-hf": ("demo-hf", "huggingface")}
WHERE = {**ECHOING, **COUNTING}


def endless(model: str, stream: bool) -> dict[str, Any]:
    """A request that takes far longer than the test."""
    content = "one two [[wait]]" if stream else "[[wait]]"
    fields: dict[str, Any] = {"model": model, "stream": stream}
    if model in COUNTING:
        content = "Count from 1 to 60."
        fields |= {"max_tokens": 1900, "ignore_eos": True}
    return {**fields, "messages": [{"role": "user", "content": content}]}


@contextlib.asynccontextmanager
async def http(roundhouse: Roundhouse) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=roundhouse.instance.url, timeout=60) as client:
        yield client


async def running(roundhouse: Roundhouse, model: str, expected: bool, limit_s: float) -> None:
    """Returns when the model's backend has, or has not, work."""
    application, deployment = WHERE[model]

    async def as_expected() -> bool:
        num = await asyncio.to_thread(roundhouse.num_running, application, deployment)
        return bool(num) == expected

    await until(as_expected, limit_s)


@pytest.mark.parametrize("model", WHERE)
async def test_stream(roundhouse: Roundhouse, model: str) -> None:
    """Leaving a stream ends the generation."""
    await running(roundhouse, model, False, 30)
    async with (
        http(roundhouse) as client,
        client.stream("POST", "/v1/chat/completions", json=endless(model, True)) as answer,
        contextlib.aclosing(answer.aiter_bytes()) as pieces,
    ):
        await anext(pieces)
        await running(roundhouse, model, True, 5)
    await running(roundhouse, model, False, 1)
    await until(lambda: not any(b.num_running for b in roundhouse.upstream), 1)


@pytest.mark.parametrize("model", WHERE)
async def test_unary(roundhouse: Roundhouse, model: str) -> None:
    """Leaving before the answer ends the generation, even if the client asks Serve not to."""
    await running(roundhouse, model, False, 30)
    headers = {"x-request-disconnect-disabled": "?1"}
    async with http(roundhouse) as client:
        request = client.post("/v1/chat/completions", json=endless(model, False), headers=headers)
        task = asyncio.create_task(request)
        await running(roundhouse, model, True, 10)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await running(roundhouse, model, False, 1)
    await until(lambda: not any(b.num_running for b in roundhouse.upstream), 1)
