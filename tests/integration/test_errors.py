"""What clients get when something is wrong, through the whole stack."""

import json
import os
import signal
from typing import Any

import httpx2
import openai
import pytest

from tests.integration.conftest import KEY, Roundhouse

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"


def asking(model: str, content: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


async def post(roundhouse: Roundhouse, path: str, **request: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=roundhouse.instance.url, timeout=120) as client:
        return await client.post(path, **request)


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    """The error, having checked that it is in OpenAI's envelope."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


async def test_unknown_model(client: openai.AsyncOpenAI) -> None:
    """A model that is not there is the client's NotFoundError, with OpenAI's code."""
    with pytest.raises(openai.NotFoundError) as refused:
        await client.chat.completions.create(
            model="no-such-model", messages=[{"role": "user", "content": "x"}]
        )
    assert refused.value.code == "model_not_found"


async def test_missing_key(roundhouse: Roundhouse) -> None:
    """An API model without its key says which variable is missing."""
    answer = await post(roundhouse, CHAT, json=asking("keyless", "x"))
    assert answer.status_code == 503
    assert error_of(answer)["code"] == "upstream_not_configured"
    assert "ROUNDHOUSE_TEST_KEY_THAT_IS_NOT_SET" in error_of(answer)["message"]


@pytest.mark.parametrize("model", ["demo", "demo-hf", "echo"])
async def test_unsupported_endpoint(roundhouse: Roundhouse, model: str) -> None:
    """A path that the backend does not answer is a clear 404."""
    answer = await post(roundhouse, "/v1/no/such", json={"model": model})
    assert answer.status_code == 404
    assert error_of(answer)["code"] == "unsupported_endpoint"


@pytest.mark.parametrize("model", ["demo", "demo-hf"])
async def test_context(roundhouse: Roundhouse, model: str) -> None:
    """A prompt that is too long is refused with OpenAI's code."""
    answer = await post(roundhouse, CHAT, json=asking(model, "word " * 4000))
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nope", 404), ("GET", CHAT, 405), ("POST", "/v1/models", 405), ("GET", "/", 404)],
)
async def test_urls(roundhouse: Roundhouse, method: str, path: str, status: int) -> None:
    """Wrong URLs and methods are answered in OpenAI's envelope too."""
    async with httpx2.AsyncClient(base_url=roundhouse.instance.url) as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    error_of(answer)


@pytest.mark.parametrize("body", [b'{"model":NaN}', b"[" * 100_000, b'{"model":"\\ud800"}', b""])
async def test_bodies(roundhouse: Roundhouse, body: bytes) -> None:
    """A body that is not strict JSON is a 400 in OpenAI's envelope."""
    headers = {"content-type": "application/json"}
    answer = await post(roundhouse, CHAT, content=body, headers=headers)
    assert answer.status_code == 400
    error_of(answer)


async def test_fallback(roundhouse: Roundhouse) -> None:
    """A backend that fails before its first byte is stood in for, and the answer says by whom."""
    answer = await post(roundhouse, CHAT, json=asking("echo", "[[fail]] x", max_tokens=4))
    assert (answer.status_code, answer.headers["x-served-by"]) == (200, "demo-hf")
    answer = await post(roundhouse, CHAT, json=asking("echo", "hello"))
    assert answer.headers["x-served-by"] == "echo"


async def test_dead_replica(roundhouse: Roundhouse) -> None:
    """A replica that dies before its answer begins gives a 503 with Retry-After, as JSON; one
    that dies in a stream gives an error event, and no end that looks clean."""
    answer = await post(roundhouse, CHAT, json=asking("echo-too", "[[die]]"))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    error_of(answer)
    roundhouse.instance.wait(lambda: roundhouse.instance.state("echo-too") == "running")

    request = asking("echo-too", "one two [[die]]", stream=True)
    answer = await post(roundhouse, CHAT, json=request)
    events = [e.removeprefix("data: ") for e in answer.text.strip().split("\n\n")]
    assert "error" in json.loads(events[-1])
    assert "[DONE]" not in answer.text
    roundhouse.instance.wait(lambda: roundhouse.instance.state("echo-too") == "running")


async def test_killed_replica(roundhouse: Roundhouse) -> None:
    """After a replica was killed requests do not wait for its replacement: a fallback answers."""
    os.kill(roundhouse.instance.replicas()["echo:echo"], signal.SIGKILL)
    served = set()
    for _ in range(5):
        answer = await post(roundhouse, CHAT, json=asking("echo", "hello", max_tokens=4))
        assert answer.status_code == 200
        served.add(answer.headers["x-served-by"])
    assert served <= {"echo", "demo-hf"}
    roundhouse.instance.wait(lambda: roundhouse.instance.state("echo") == "running")


async def test_unforeseen(roundhouse: Roundhouse) -> None:
    """An error that nobody foresaw shows nothing of itself."""
    answer = await post(roundhouse, CHAT, json=asking("echo-too", "[[crash]]"))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


async def test_control_headers(roundhouse: Roundhouse) -> None:
    """Headers by which Serve would be steered have no effect."""
    headers = {"x-request-timeout-seconds": "0.000001", "serve_multiplexed_model_id": "x"}
    answer = await post(roundhouse, CHAT, json=asking("echo", "hi"), headers=headers)
    assert answer.status_code == 200


async def test_key_stays(roundhouse: Roundhouse) -> None:
    """The upstream's key is in no answer, of errors either."""
    for content in ("hi", "[[fail]]", "[[crash]]"):
        answer = await post(roundhouse, CHAT, json=asking("gpt-4", content))
        assert KEY not in answer.text + str(answer.headers)
