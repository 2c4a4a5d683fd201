"""/v1/embeddings: from a request's bytes to an answer's, with the engine between."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deployments.config import HuggingFaceConfig
from deployments.errors import BackendTimeout, UnsupportedEndpoint
from deployments.exchange import Exchange, Head, Item, Tail
from deployments.huggingface.embedding import response
from deployments.huggingface.embedding.engine import EmbeddingEngine
from deployments.huggingface.embedding.jobs import Job, Jobs
from deployments.huggingface.embedding.loading import load_embedder
from deployments.huggingface.embedding.request import EmbeddingModel, prepare
from deployments.huggingface.protocol.answer import TIMED_OUT
from deployments.progress import Report

PATH = "/v1/embeddings"


class Embedding:
    """A loaded embedder with its engine running."""

    def __init__(self, model: EmbeddingModel, engine: EmbeddingEngine) -> None:
        self.engine = engine
        self._model = model

    async def exchange(
        self, request: Exchange, tokenizing: ThreadPoolExecutor
    ) -> AsyncIterator[Item]:
        """Answers one request."""
        if request.path != PATH:
            raise UnsupportedEndpoint(
                f"This model makes embeddings only: it does not answer this endpoint, but {PATH}."
            )
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(request.deadline_s):
                prepared = await loop.run_in_executor(
                    tokenizing, prepare, request.body, self._model
                )
                job = Job(prepared.inputs)
                try:
                    self.engine.submit(job)
                    vectors = await job.done
                finally:
                    self.engine.cancel(job)
        except TimeoutError as exc:
            raise BackendTimeout(TIMED_OUT) from exc
        normalizes = self._model.normalizes
        body = await loop.run_in_executor(
            tokenizing, response.body, vectors, prepared, normalizes, request.model
        )
        yield Head()
        yield body
        yield Tail(prepared.num_tokens, 0)


def start(folder: Path, config: HuggingFaceConfig, report: Report) -> Embedding:
    """Loads a checkpoint and starts its engine. Raises: StartError."""
    loaded = load_embedder(folder, config, report)
    jobs = Jobs(config.max_queued_requests, loaded.max_batch_tokens)
    engine = EmbeddingEngine(loaded.encoder, jobs)
    engine.start()
    return Embedding(loaded.model, engine)
