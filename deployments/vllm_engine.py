"""Models that vLLM serves: its engine and its own OpenAI server, called in memory.

Every endpoint, parameter and answer is vLLM's. Ours is the engine's life and health, the count of
tokens, and errors in one form.
"""

import asyncio
import difflib
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from deployments.adapters import check_shapes, read_adapter_config
from deployments.asgi import AppCall, ASGIApp
from deployments.body import MAX_ECHO_CHARS, parse_object, with_fields
from deployments.catalog import checkpoint_path
from deployments.config import VLLMConfig
from deployments.engine_cores import EngineCores
from deployments.errors import (
    BackendOverloaded,
    BackendUnavailable,
    ContextTooLong,
    InvalidRequest,
    ModelNotFound,
    RoundhouseError,
    StartError,
    UnsupportedEndpoint,
)
from deployments.exchange import Exchange, Head, Item, ModelCard, Tail
from deployments.load import Load
from deployments.progress import Progress, Report, unreported
from deployments.stops import stop_ids
from deployments.vllm_load import Gauge
from deployments.vllm_stops import Stops, path_of_exchange

if TYPE_CHECKING:
    from vllm.engine.protocol import EngineClient

ERROR_EVENT = b'data: {"error"'
MAX_ERROR_BYTES = 65536
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as `max_lora_rank`
MAX_LORAS = 8  # in one batch; each takes GPU memory for the largest rank


EngineConfig = Callable[[Any], Any]  # AsyncEngineArgs to VllmConfig


@dataclass(slots=True)
class Usage:
    """The tokens of one exchange, counted as they leave the engine."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


usage_of_exchange: ContextVar[Usage] = ContextVar("usage_of_exchange")


class VLLMBackend:
    """One vLLM engine. All of its endpoints that are a JSON POST below /v1 are answered."""

    def __init__(self, model_id: str, config: VLLMConfig) -> None:
        self._model_id = model_id
        self._config = config
        self._model_ids = config.model_ids(model_id)
        self._engine: EngineClient | None = None
        self._gauge = Gauge()
        self._app: ASGIApp | None = None
        self.engine_config: EngineConfig = _engine_config
        self._cores = EngineCores()

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
            self._engine, self._app = await launch(
                args, self._config, self._gauge, self.engine_config
            )
        except (ValueError, OSError, RuntimeError) as exc:
            await self.stop()
            reason = str(exc).strip().split("\n")[0]
            raise StartError(f"vLLM could not start {self._config.checkpoint}: {reason}") from exc
        if computes_on_cpu():
            self._cores.settle()

    async def stop(self) -> None:
        engine, self._engine, self._app = self._engine, None, None
        self._cores.release()
        if engine is not None:
            await asyncio.to_thread(engine.shutdown)

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
        call = AppCall(request.path, self._body(request, model), request.request_id)
        answer = call.answer(self._app, _raise_error_event)
        try:
            async for item in answer:
                if isinstance(item, Head) and item.status >= 400:
                    raise await error_from_answer(item, answer, request.path)
                yield item
        finally:
            await answer.aclose()
        yield Tail(usage.prompt_tokens, usage.completion_tokens)

    def _model(self, asked: str) -> str:
        """vLLM's name of what is asked for. Raises: ModelNotFound for an adapter that is gone."""
        if asked in self._model_ids:
            return asked
        if asked.startswith(f"{self._model_id}:"):  # a router may be behind a redeployment
            raise ModelNotFound("The model does not exist here any more.", param="model")
        return self._model_id

    def _body(self, request: Exchange, model: str) -> bytes:
        """The client may have asked by an alias, or for a model that this one stands in for."""
        if parse_object(request.body).get("model") == model:
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


def server_args(path: str, model_id: str, config: VLLMConfig) -> Namespace:
    """vLLM's own defaults with this configuration laid over them. Raises: StartError."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    args: Namespace = make_arg_parser(FlexibleArgumentParser()).parse_args([])
    settings = {
        "model": path,
        "served_model_name": [model_id],
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "chat_template": config.chat_template and checkpoint_path(config.chat_template),
        "trust_remote_code": config.trust_remote_code,
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "distributed_executor_backend": _executor(config),
        "gpu_memory_utilization": config.memory_utilization,
        "disable_log_stats": True,
        **_quantization(config),
        **_adapters(model_id, config),
        **config.engine_options,
    }
    for name, value in settings.items():
        if not hasattr(args, name):
            near = difflib.get_close_matches(name, vars(args), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise StartError(f"vLLM has no engine option {name}{hint}")
        setattr(args, name, value)
    return args


def _executor(config: VLLMConfig) -> str | None:
    """What runs the shards: vLLM would go by what it finds around it, GPUs and Ray."""
    if config.spans_nodes:
        return "ray"
    return "mp" if config.num_shards > 1 else None


def _adapters(model_id: str, config: VLLMConfig) -> dict[str, Any]:
    """vLLM's options for adapters. It would take one of them at a time, of rank 16, by itself."""
    if not config.adapters:
        return {}
    from vllm.entrypoints.openai.models.protocol import LoRAModulePath

    paths = {name: checkpoint_path(path) for name, path in config.adapters.items()}
    folders = {name: Path(path) for name, path in paths.items() if Path(path).is_dir()}
    configs = [read_adapter_config(name, folder) for name, folder in folders.items()]
    ranks = [r for c in configs for r in (c.get("r"), *(c.get("rank_pattern") or {}).values())]
    needed = max((rank for rank in ranks if isinstance(rank, int)), default=16)
    return {
        "enable_lora": True,
        "lora_modules": [LoRAModulePath(f"{model_id}:{name}", paths[name]) for name in paths],
        "max_loras": _num_lora_slots(len(paths)),
        "max_lora_rank": next((rank for rank in LORA_RANKS if rank >= needed), needed),
    }


def _num_lora_slots(num_adapters: int) -> int:
    """How many adapters one batch may have.

    Without a GPU, vLLM 0.32 gives rows of the base model the last slot's adapter: their index -1
    is taken for Python's (vllm/lora/ops/torch_ops/lora_ops.py). A last slot that no adapter ever
    needs holds zeros.
    """
    return num_adapters + 1 if computes_on_cpu() else min(num_adapters, MAX_LORAS)


def computes_on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _quantization(config: VLLMConfig) -> dict[str, str]:
    if config.quantization == "int8":
        raise StartError("vLLM quantises to nf4 only; int8 needs `backend: huggingface`.")
    return {"quantization": "bitsandbytes"} if config.quantization == "nf4" else {}


def _engine_config(engine_args: Any) -> Any:
    """vLLM's own configuration. Whoever runs a replica over several nodes makes it there, and
    adds the placement group that its shards are in: see `VLLMBackend.engine_config`."""
    return engine_args.create_engine_config()


async def launch(
    args: Namespace,
    config: VLLMConfig,
    gauge: Gauge,
    engine_config: EngineConfig = _engine_config,
) -> tuple["EngineClient", ASGIApp]:
    """Starts the engine (in a process of its own) and builds vLLM's app around it."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app

    engine_args = AsyncEngineArgs.from_cli_args(args)
    vllm_config = await asyncio.to_thread(engine_config, engine_args)
    # Not in a thread: the engine binds itself to the running loop.
    engine = engine_class().from_vllm_config(
        vllm_config,
        disable_log_stats=args.disable_log_stats,
        # Statistics cost a little of every step: only where somebody reads them.
        stat_loggers=[gauge.stat_logger] if config.autoscaling else None,
    )
    engine.stops = _stops(config, engine)
    tasks = await engine.get_supported_tasks()
    app = build_app(args, tasks, engine.model_config)
    await init_app_state(engine, app.state, args, tasks)
    return engine, app


def _stops(config: VLLMConfig, engine: Any) -> Stops:
    """The configured stops; ids that the model lacks can never come, and would confuse it."""
    if not (config.stop or config.stop_token_ids):
        return Stops()
    ids = stop_ids(engine.get_tokenizer(), config.stop, config.stop_token_ids)
    vocab_size = engine.model_config.get_vocab_size()
    return Stops(config.stop, frozenset(i for i in ids if i < vocab_size))


def engine_class() -> Any:
    """vLLM's engine with the model's own stops, counting each exchange's tokens as they pass.

    The answer's bytes would say it too, but a stream only where the client asked for usage.
    """
    from vllm.v1.engine.async_llm import AsyncLLM

    class Engine(AsyncLLM):  # type: ignore[misc] # vLLM is not always installed
        stops = Stops()

        async def generate(
            self, prompt: Any, sampling_params: Any, *args: Any, **kwargs: Any
        ) -> AsyncIterator[Any]:
            usage = usage_of_exchange.get()
            params = self.stops.under(sampling_params)
            counted = False
            async for output in super().generate(prompt, params, *args, **kwargs):
                if not counted:
                    usage.prompt_tokens += len(output.prompt_token_ids or ())
                    counted = True
                usage.completion_tokens += sum(len(o.token_ids) for o in output.outputs)
                yield output

    return Engine


def _raise_error_event(piece: bytes) -> None:
    """vLLM reports an error in a stream as an event, and then ends it as if all were well."""
    if piece.startswith(ERROR_EVENT):
        raise BackendUnavailable("The model failed while it was answering.")


async def error_from_answer(
    head: Head, answer: AsyncIterator[Head | bytes], path: str
) -> RoundhouseError:
    """vLLM's error answer as one of ours."""
    body = b""
    async for piece in answer:
        if isinstance(piece, bytes) and len(body) < MAX_ERROR_BYTES:
            body += piece
    try:
        error = msgspec.json.decode(body).get("error", {})
        message, param = str(error["message"])[:MAX_ECHO_CHARS], error.get("param")
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
        message, param = "", None
    return _error(head.status, message, param, path)


def _error(status: int, message: str, param: str | None, path: str) -> RoundhouseError:
    if status in {404, 405, 501}:
        return UnsupportedEndpoint(f"This model does not answer {path}.")
    if status == 429:
        return BackendOverloaded("The model's queue is full.", retry_after_s=1)
    if status == 503:
        return BackendUnavailable("The model cannot answer now.", retry_after_s=1)
    if status >= 500:
        return RoundhouseError()
    kind = ContextTooLong if _is_about_context(message, param) else InvalidRequest
    return kind(message or "The model refused the request.", param=_plain_param(param))


def _is_about_context(message: str, param: str | None) -> bool:
    """vLLM names the parameter for a long prompt, and for a long answer only in its text."""
    return param == "input_tokens" or "max_model_len" in message or "context length" in message


def _plain_param(param: str | None) -> str | None:
    """OpenAI names a field as the client wrote it, without vLLM's `body.` before it."""
    return param.removeprefix("body.") if param else None
