"""Models that vLLM serves: its engine and its own OpenAI server, called in memory.

Every endpoint, parameter and answer is vLLM's. Ours is the engine's life and health, the count of
tokens, and errors in one form.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.adapters import check_shapes, read_adapter_config
from deployments.asgi import AppCall, ASGIApp
from deployments.body import parse_object, with_fields
from deployments.catalog import checkpoint_path
from deployments.config import VLLMConfig
from deployments.errors import BackendUnavailable, ModelNotFound, StartError
from deployments.exchange import Exchange, Head, Item, ModelCard, Tail
from deployments.load import Load
from deployments.progress import Progress, Report, unreported
from deployments.schema_parts import check_parts
from deployments.spans import TraceHeaders
from deployments.vllm_engine.args import server_args
from deployments.vllm_engine.errors import error_from_answer
from deployments.vllm_engine.guard import EngineGuard
from deployments.vllm_engine.launch import EngineConfig, create_engine_config, launch
from deployments.vllm_engine.load import Gauge
from deployments.vllm_engine.stops import path_of_exchange
from deployments.vllm_engine.usage import Usage, usage_of_exchange

if TYPE_CHECKING:
    from vllm.engine.protocol import EngineClient

ERROR_EVENT = b'data: {"error"'
WITH_SCHEMAS = ("response_format", "tools", "text", "structured_outputs")


class VLLMBackend:
    """One vLLM engine. All of its endpoints that are a JSON POST below /v1 are answered."""

    def __init__(self, model_id: str, config: VLLMConfig) -> None:
        self._model_id = model_id
        self._config = config
        self._model_ids = config.model_ids(model_id)
        self._engine: EngineClient | None = None
        self._gauge = Gauge()
        self._app: ASGIApp | None = None
        self.engine_config: EngineConfig = create_engine_config
        self.log_identity: Mapping[str, str] | None = None  # of JSON lines; None: text
        self._guard = EngineGuard()

    def card(self) -> ModelCard:
        return ModelCard(backend="vllm", models=tuple(self._model_ids))

    @property
    def num_running(self) -> int:
        """Requests that the engine holds, waiting ones included."""
        return self._engine.get_num_unfinished_requests() if self._engine else 0

    def load(self) -> Load:
        """What vLLM's scheduler said last; without `autoscaling` it is not asked to."""
        return self._gauge.load if self.num_running else Load(0)

    async def start(self, report: Report = unreported) -> None:
        report(Progress("starting vLLM's engine"))  # which does not say how far it is
        path = checkpoint_path(self._config.checkpoint)
        _check_folder(path)
        for name, adapter in self._config.adapters.items():
            _check_adapter(name, adapter, Path(path))
        args = await asyncio.to_thread(server_args, path, self._model_id, self._config)
        try:
            with self._guard.learning():
                self._engine, self._app = await launch(
                    args, self._config, self._gauge, self.engine_config, self.log_identity
                )
        except (ValueError, OSError, RuntimeError) as exc:
            await self.stop()
            reason = str(exc).strip().split("\n")[0]
            raise StartError(f"vLLM could not start {self._config.checkpoint}: {reason}") from exc

    async def stop(self) -> None:
        engine, self._engine, self._app = self._engine, None, None
        if engine is not None:
            await asyncio.to_thread(engine.shutdown)
        self._guard.release()

    async def check_health(self) -> None:
        if self._engine is None or self._engine.errored:
            raise BackendUnavailable("The vLLM engine is not running.")

    async def exchange(self, request: Exchange) -> AsyncIterator[Item]:
        model = self._model(request.model)
        if self._app is None:
            raise BackendUnavailable("The vLLM engine is not running.")
        await self.check_health()
        usage = Usage()
        usage_of_exchange.set(usage)
        path_of_exchange.set(request.path)
        body = self._body(request, model)
        call = AppCall(request.path, body, request.request_id, self._trace(request))
        answer = call.answer(self._app, _raise_error_event)
        try:
            async for item in answer:
                if isinstance(item, Head) and item.status >= 400:
                    raise await error_from_answer(item, answer, request.path)
                yield item
        finally:
            await answer.aclose()
        yield Tail(usage.prompt_tokens, usage.completion_tokens)

    def _trace(self, request: Exchange) -> TraceHeaders:
        """For vLLM's own spans, which are below ours if it makes any."""
        return request.trace if "otlp_traces_endpoint" in self._config.engine_options else ()

    def _model(self, asked: str) -> str:
        """vLLM's name of what is asked for. Raises: ModelNotFound for an adapter that is gone."""
        if asked in self._model_ids:
            return asked
        if asked.startswith(f"{self._model_id}:"):  # a router may be behind a redeployment
            raise ModelNotFound("The model does not exist here any more.", param="model")
        return self._model_id

    def _body(self, request: Exchange, model: str) -> bytes:
        """The client may have asked by an alias, or for a model that this one stands in for.

        Raises: InvalidRequest for schemas that vLLM would compile until it has no memory left.
        """
        fields = parse_object(request.body)
        for name in WITH_SCHEMAS:
            check_parts([fields.get(name)], name)
        if fields.get("model") == model:
            return request.body
        return with_fields(request.body, model=model)


def _check_folder(path: str) -> None:
    """A wrong path is said at once, not after vLLM's imports."""
    folder = Path(path)
    if path.startswith((".", "/")) and not folder.is_dir():
        raise StartError(f"There is no checkpoint folder {path}.")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise StartError(f"The checkpoint folder {path} has no config.json.")


def _check_adapter(name: str, path: str, checkpoint: Path) -> None:
    """vLLM would take one of smaller layers, and compute something with it."""
    folder = Path(checkpoint_path(path))
    if folder.is_dir() or path.startswith((".", "/", "~")):
        read_adapter_config(name, folder)
        check_shapes(name, folder, checkpoint)


def _raise_error_event(piece: bytes) -> None:
    """vLLM reports an error in a stream as an event, and then ends it as if all were well."""
    if piece.startswith(ERROR_EVENT):
        raise BackendUnavailable("The model failed while it was answering.")
