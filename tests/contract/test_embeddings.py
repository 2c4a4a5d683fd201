"""What /v1/embeddings promises: a real model's own vectors, in OpenAI's form."""

import base64
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import torch

from deployments import backends
from deployments.errors import ContextTooLong, InvalidRequest
from deployments.exchange import Backend, Tail
from tests.contract.asking import ask, exchange
from tests.contract.subjects import MODEL
from tests.minilm import FOLDER, NUM_DIMENSIONS, TEXTS, reference, vectors

PATH = "/v1/embeddings"
TOLERANCE = 1e-5

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.filterwarnings("ignore"),  # the engines run in this process
]


SETTINGS: dict[str, dict[str, Any]] = {
    "huggingface": {},
    "vllm": {"engine_options": {"kv_cache_memory_bytes": 2**26, "enforce_eager": True}},
}


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="session",
    params=["huggingface", pytest.param("vllm", marks=pytest.mark.slow)],
)
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    settings = {"backend": request.param, "checkpoint": str(FOLDER), "dtype": "float32"}
    settings |= SETTINGS[request.param]
    backend = backends.build(MODEL, backends.configure(settings))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        await backend.start()
    yield backend
    await backend.stop()


async def embedded(backend: Backend, inputs: Any, **fields: Any) -> Any:
    return (await ask(backend, exchange({"input": inputs, **fields}, PATH))).json


def floats(body: Any) -> torch.Tensor:
    return torch.tensor([item["embedding"] for item in body["data"]])


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


async def test_vectors(backend: Backend) -> None:
    """Floats are `SentenceTransformer.encode`'s, in the order of the texts, of length one."""
    body = await embedded(backend, list(TEXTS))
    assert off(floats(body), vectors()) < TOLERANCE
    assert [item["index"] for item in body["data"]] == list(range(len(TEXTS)))
    assert {item["object"] for item in body["data"]} == {"embedding"}
    assert (body["object"], body["model"]) == ("list", MODEL)


async def test_base64(backend: Backend) -> None:
    """base64 holds the same numbers, as little-endian float32."""
    body = await embedded(backend, list(TEXTS), encoding_format="base64")
    raw = b"".join(base64.b64decode(item["embedding"]) for item in body["data"])
    found = torch.frombuffer(bytearray(raw), dtype=torch.float32).view(-1, NUM_DIMENSIONS)
    assert off(found, vectors()) < TOLERANCE


async def test_usage(backend: Backend) -> None:
    """The tokens are those of sentence-transformers' tokenizer, and the router is told the same."""
    answered = await ask(backend, exchange({"input": list(TEXTS)}, PATH))
    count = sum(len(reference().tokenize([text])["input_ids"][0]) for text in TEXTS)
    usage = answered.json["usage"]
    assert (usage["prompt_tokens"], usage["total_tokens"]) == (count, count)
    assert answered.tail == Tail(count, 0)


async def test_one_text(backend: Backend) -> None:
    """A text that is no list is one vector."""
    assert off(floats(await embedded(backend, TEXTS[0])), vectors()[:1]) < TOLERANCE


async def test_a_text_that_is_too_long(backend: Backend) -> None:
    """It is refused, not cut."""
    with pytest.raises(ContextTooLong):
        await embedded(backend, "one " * 600)


async def test_dimensions(backend: Backend) -> None:
    """`dimensions` are the first ones, of length one again; more than there are is an error. vLLM
    takes them of models only that were trained for it, and says so."""
    if backend.card().backend == "vllm":
        with pytest.raises(InvalidRequest, match="Matryoshka"):
            await embedded(backend, TEXTS[0], dimensions=64)
        return
    short = floats(await embedded(backend, list(TEXTS), dimensions=64))
    expected = torch.nn.functional.normalize(vectors()[:, :64], dim=-1)
    assert off(short, expected) < TOLERANCE
    with pytest.raises(InvalidRequest, match="384"):
        await embedded(backend, TEXTS[0], dimensions=NUM_DIMENSIONS + 1)
