"""A client that leaves frees the backend's slot, through the whole stack."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.integration.conftest import Roundhouse
from tests.plain_http import CHAT
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
    async with httpx2.AsyncClient(base_url=roundhouse.instance.url, timeout=120) as client:
        yield client


async def running(roundhouse: Roundhouse, model: str, expected: bool) -> None:
    """Returns when the model's backend has, or has not, work."""
    application, deployment = WHERE[model]

    async def as_expected() -> bool:
        num = await asyncio.to_thread(roundhouse.num_running, application, deployment)
        return bool(num) == expected

    await until(as_expected)


async def given_up(roundhouse: Roundhouse, model: str, request_id: str) -> None:
    """Returns when nothing is worked on any more, and the replica has logged that this was
    cancelled: it has not come to its end."""
    await running(roundhouse, model, False)
    await until(lambda: not any(b.num_running for b in roundhouse.upstream))
    files = f"replica_{WHERE[model][0]}_*.log"
    folder = roundhouse.instance.logs / "serve"

    def told() -> list[str]:
        lines = [line for file in folder.glob(files) for line in file.read_text().splitlines()]
        return [line for line in lines if f" {request_id} -- " in line]

    await until(lambda: bool(told()))
    assert all("error=cancelled" in line for line in told())


@pytest.mark.parametrize("model", WHERE)
async def test_stream(roundhouse: Roundhouse, model: str) -> None:
    """Leaving a stream ends the generation."""
    await running(roundhouse, model, False)
    headers = {"x-request-id": f"stream-{model}"}
    async with (
        http(roundhouse) as client,
        client.stream("POST", CHAT, json=endless(model, True), headers=headers) as answer,
        contextlib.aclosing(answer.aiter_bytes()) as pieces,
    ):
        await anext(pieces)
        await running(roundhouse, model, True)
    await given_up(roundhouse, model, headers["x-request-id"])


@pytest.mark.parametrize("model", WHERE)
async def test_unary(roundhouse: Roundhouse, model: str) -> None:
    """Leaving before the answer ends the generation, even if the client asks Serve not to."""
    await running(roundhouse, model, False)
    headers = {"x-request-disconnect-disabled": "?1", "x-request-id": f"whole-{model}"}
    async with http(roundhouse) as client:
        task = asyncio.create_task(client.post(CHAT, json=endless(model, False), headers=headers))
        await running(roundhouse, model, True)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await given_up(roundhouse, model, headers["x-request-id"])
