"""Hugging Face models behind the one contract. Loads no heavy library before `start`."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deployments.config import HuggingFaceConfig
from deployments.errors import BackendUnavailable, ModelNotFound, StartError
from deployments.exchange import Exchange, Head, Item, ModelCard
from deployments.huggingface.checkpoint import hub
from deployments.huggingface.embedding.task import task_of
from deployments.huggingface.engine.generation import Sink
from deployments.huggingface.engine.grammar import Grammar, Grammars, Source
from deployments.huggingface.loading.booking import enforce
from deployments.huggingface.loading.loader import load
from deployments.huggingface.protocol.answer import Answer
from deployments.huggingface.protocol.endpoints import Prepared, check_path, prepare
from deployments.huggingface.protocol.plan import TextModel
from deployments.load import Load
from deployments.progress import Report, unreported

if TYPE_CHECKING:
    from deployments.huggingface.embedding.engine import EmbeddingEngine
    from deployments.huggingface.embedding.service import Embedding
    from deployments.huggingface.engine.engine import Engine
    from deployments.huggingface.engine.sequence import Sequence

NOT_STARTED = "The model is not loaded."


@dataclass(frozen=True, slots=True)
class Running:
    """What there is between start and stop."""

    text_model: TextModel
    engine: "Engine"
    grammars: Grammars

    def sequences(
        self, prepared: Prepared, grammar: Grammar | None, sink: Sink, adapter: str | None
    ) -> "list[Sequence]":
        """The choices of a request as the engine takes them."""
        from deployments.huggingface.engine.sequence import Sequence

        vocabulary = self.text_model.vocabulary
        choices = [replace(choice, adapter=adapter) for choice in prepared.choices]
        return [Sequence(choice, vocabulary, sink, grammar) for choice in choices]


class HuggingFaceBackend:
    """One checkpoint and its adapters; implements `deployments.exchange.Backend`."""

    def __init__(self, model_id: str, config: HuggingFaceConfig) -> None:
        self._model_id = model_id
        self._config = config
        self._adapters = config.model_ids(model_id)
        self._running: Running | Embedding | None = None
        self._stopped = False
        self._num_running = 0
        # Tokenizing a long prompt takes a while, and a tokenizer is no faster on two threads.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="huggingface-tokenizer")
        self._compiling = ThreadPoolExecutor(2, thread_name_prefix="huggingface-grammar")

    @property
    def engine(self) -> "Engine | EmbeddingEngine":
        """The engine, for those who watch its queue. Raises: BackendUnavailable."""
        return self._require().engine

    @property
    def num_running(self) -> int:
        """Exchanges that are being answered or wait for it."""
        return self._num_running

    def load(self) -> Load:
        """What the engine works on, what waits for it, and how much of its room is reserved."""
        running = self._running
        if running is None:
            return Load(0)
        if not isinstance(running, Running):
            return Load(self._num_running, running.engine.num_waiting)
        engine = running.engine
        return Load(engine.num_running, engine.num_waiting, engine.kv_use)

    async def start(self, report: Report = unreported) -> None:
        """Loads the model, leaving the event loop free. Raises: StartError."""
        running = await asyncio.to_thread(_run, self._config, report)
        if self._stopped:
            await asyncio.to_thread(running.engine.stop)
            raise StartError("The model was stopped while it was being loaded.")
        self._running = running

    async def exchange(self, request: Exchange) -> AsyncIterator[Item]:
        """Answers one request; the Head comes with the first piece of the answer."""
        running = self._require()
        if not isinstance(running, Running):
            async for item in self._embedded(running, request):
                yield item
            return
        check_path(request.path)
        adapter = self._adapter(request.model)
        loop = asyncio.get_running_loop()
        expires_at = None if request.deadline_s is None else loop.time() + request.deadline_s
        prepared = await loop.run_in_executor(
            self._tokenizing, prepare, request, running.text_model
        )
        grammar = await self._compiled(running.grammars, prepared.grammar)
        answer = Answer(prepared.response, len(prepared.choices), expires_at)
        sequences = running.sequences(prepared, grammar, answer, adapter)
        self._num_running += 1
        try:
            running.engine.submit(sequences)
            piece = await answer.pipe.read()
            yield Head(content_type=prepared.response.content_type)
            while piece:
                yield piece
                piece = await answer.pipe.read()
            yield prepared.response.tail()
        finally:
            self._num_running -= 1
            answer.close()
            running.engine.cancel(sequences)

    async def _compiled(self, grammars: Grammars, source: Source | None) -> Grammar | None:
        if source is None:
            return None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._compiling, grammars.compile, source)

    async def check_health(self) -> None:
        """Returns while the engine can generate. Raises: BackendUnavailable."""
        self._require().engine.check()

    def card(self) -> ModelCard:
        """The model's id, and those of its adapters."""
        return ModelCard("huggingface", tuple(self._adapters))

    async def stop(self) -> None:
        """Ends the engine's thread and lets go of the model."""
        self._stopped = True
        running, self._running = self._running, None
        self._tokenizing.shutdown(wait=False)
        self._compiling.shutdown(wait=False)
        if running is not None:
            await asyncio.to_thread(running.engine.stop)

    def _adapter(self, model: str) -> str | None:
        """The adapter that a model id means. Raises: ModelNotFound."""
        if model not in self._adapters and model.startswith(f"{self._model_id}:"):
            # A router may be a second behind a redeployment.
            raise ModelNotFound("The model does not exist here any more.", param="model")
        return self._adapters.get(model)

    async def _embedded(self, running: "Embedding", request: Exchange) -> AsyncIterator[Item]:
        self._num_running += 1
        try:
            async for item in running.exchange(request, self._tokenizing):
                yield item
        finally:
            self._num_running -= 1

    def _require(self) -> "Running | Embedding":
        if self._running is None:
            raise BackendUnavailable(NOT_STARTED)
        return self._running


def _run(config: HuggingFaceConfig, report: Report) -> "Running | Embedding":
    """Loads the model and starts its engine. Raises: StartError."""
    folder = hub.folder(config, report)
    enforce(config)
    if task_of(folder, config) == "embed":
        from deployments.huggingface.embedding.service import start

        return start(folder, config, report)
    loaded = load(config, report, folder)
    from deployments.huggingface.engine.engine import Engine

    engine = Engine(loaded.model, loaded.capacity, loaded.adapters)
    engine.start()
    limits = loaded.text_model.limits
    grammars = Grammars(loaded.text_model.vocabulary, limits.vocab_size, limits.eos_ids)
    return Running(loaded.text_model, engine, grammars)
