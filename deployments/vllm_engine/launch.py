"""Starts vLLM's engine, with the model's stops and our count of tokens, and its server's app."""

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from deployments.asgi import ASGIApp
from deployments.config import VLLMConfig
from deployments.stops import stop_ids
from deployments.vllm_engine.json_log import in_json
from deployments.vllm_engine.load import Gauge
from deployments.vllm_engine.stops import Stops
from deployments.vllm_engine.usage import usage_of_exchange

if TYPE_CHECKING:
    from vllm.engine.protocol import EngineClient

EngineConfig = Callable[[Any], Any]  # AsyncEngineArgs to VllmConfig


def create_engine_config(engine_args: Any) -> Any:
    """vLLM's own configuration. Whoever runs a replica over several nodes makes it there, and
    adds the placement group that its shards are in: see `VLLMBackend.engine_config`."""
    return engine_args.create_engine_config()


async def launch(
    args: Namespace,
    config: VLLMConfig,
    gauge: Gauge,
    engine_config: EngineConfig = create_engine_config,
    log_identity: Mapping[str, str] | None = None,
) -> tuple["EngineClient", ASGIApp]:
    """Starts the engine (in a process of its own) and builds vLLM's app around it. With a
    `log_identity` vLLM logs as JSON, but for shards on other nodes, which have not our file."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app

    engine_args = AsyncEngineArgs.from_cli_args(args)
    with in_json(engine_args, None if config.spans_nodes else log_identity):
        engine = await _started(engine_args, config, gauge, engine_config)
        tasks = await engine.get_supported_tasks()  # all of its processes are up
    engine.stops = _stops(config, engine)
    app = build_app(args, tasks, engine.model_config)
    await init_app_state(engine, app.state, args, tasks)
    return engine, app


async def _started(
    engine_args: Any, config: VLLMConfig, gauge: Gauge, engine_config: EngineConfig
) -> Any:
    from deployments.vllm_engine.in_core import openmp_bound

    vllm_config = await asyncio.to_thread(engine_config, engine_args)
    # Not in a thread: the engine binds itself to the running loop.
    with openmp_bound(vllm_config):
        return engine_class().from_vllm_config(
            vllm_config,
            disable_log_stats=engine_args.disable_log_stats,
            # Statistics cost a little of every step: only where somebody reads them.
            stat_loggers=[gauge.stat_logger] if config.autoscaling else None,
        )


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

        async def encode(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            usage = usage_of_exchange.get()
            async for output in super().encode(*args, **kwargs):
                if output.finished:
                    usage.prompt_tokens += len(output.prompt_token_ids or ())
                yield output

    return Engine
