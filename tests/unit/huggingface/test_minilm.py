"""A real embedder, all-MiniLM-L6-v2, through our engine: sentence-transformers' own vectors."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import torch

from deployments.huggingface.embedding.engine import EmbeddingEngine
from deployments.huggingface.embedding.jobs import Job, Jobs
from deployments.huggingface.embedding.loading import LoadedEmbedder, load_embedder
from deployments.progress import unreported
from tests.minilm import FOLDER, MAX_TOKENS, NUM_DIMENSIONS, SHA256, TEXTS, reference, vectors

from .asking import configured

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, when they are imported
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def embedder() -> LoadedEmbedder:
    return load_embedder(FOLDER, configured(FOLDER), unreported)


@pytest_asyncio.fixture
async def engine(embedder: LoadedEmbedder) -> AsyncIterator[EmbeddingEngine]:
    engine = EmbeddingEngine(embedder.encoder, Jobs(16, embedder.max_batch_tokens))
    engine.start()
    yield engine
    await asyncio.to_thread(engine.stop)


def job(embedder: LoadedEmbedder, *texts: str) -> Job:
    encode = embedder.model.vocabulary.encode
    return Job(tuple(encode(text, add_special_tokens=True) for text in texts))


def off(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


def test_it_is_the_model_of_the_hub() -> None:
    """The package holds the weights that the hub has."""
    weights = (FOLDER / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == SHA256


async def test_one_batch(embedder: LoadedEmbedder, engine: EmbeddingEngine) -> None:
    """Texts of odd lengths in one batch have the vectors that `encode` gives each alone: mean
    pooled, of length one."""
    together = job(embedder, *TEXTS)
    engine.submit(together)
    found = await together.done
    assert off(found, vectors()) < TOLERANCE
    assert off(found.norm(dim=1), torch.ones(len(TEXTS))) < TOLERANCE


async def test_many_requests(embedder: LoadedEmbedder, engine: EmbeddingEngine) -> None:
    """Requests that share passes change nothing of each other's vectors."""
    jobs = [job(embedder, TEXTS[n], TEXTS[-1]) for n in range(len(TEXTS))]
    for one in jobs:
        engine.submit(one)
    for n, one in enumerate(jobs):
        assert off(await one.done, vectors()[[n, -1]]) < TOLERANCE


def test_what_it_takes(embedder: LoadedEmbedder) -> None:
    """The longest text, the size of the vectors and the tokens are sentence-transformers', and it
    is found to be batchable."""
    facts, model = embedder.model, reference()
    assert facts.max_model_len == model.max_seq_length == MAX_TOKENS
    assert facts.size == model.get_embedding_dimension() == NUM_DIMENSIONS
    for text in TEXTS:
        expected = model.tokenize([text])["input_ids"][0].tolist()
        assert list(facts.vocabulary.encode(text, add_special_tokens=True)) == expected
    assert embedder.max_batch_tokens > MAX_TOKENS
