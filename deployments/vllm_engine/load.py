"""What vLLM's scheduler says of its load, by vLLM's own hook for statistics."""

from typing import TYPE_CHECKING, Any

from deployments.load import Load

if TYPE_CHECKING:
    from vllm.v1.metrics.loggers import StatLoggerBase


class Gauge:
    """Keeps the load that was told last, of each of the engine's schedulers."""

    def __init__(self) -> None:
        self._loads: dict[int, Load] = {}

    @property
    def load(self) -> Load:
        """Of all schedulers together; `kv_use` is that of the fullest."""
        loads = self._loads.values()
        return Load(
            sum(load.num_running for load in loads),
            sum(load.num_waiting for load in loads),
            max((load.kv_use for load in loads), default=0.0),
        )

    def stat_logger(self, vllm_config: Any, engine_index: int = 0) -> "StatLoggerBase":
        """A factory as vLLM takes it."""
        from vllm.v1.metrics.loggers import StatLoggerBase

        loads = self._loads

        class Logger(StatLoggerBase):  # type: ignore[misc] # vLLM is not always installed
            def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
                self._index = engine_index

            def record(self, scheduler_stats: Any, *_: Any, **__: Any) -> None:
                if scheduler_stats is not None:
                    waiting = scheduler_stats.num_waiting_reqs
                    waiting += scheduler_stats.num_skipped_waiting_reqs
                    loads[self._index] = Load(
                        scheduler_stats.num_running_reqs, waiting, scheduler_stats.kv_cache_usage
                    )

            def log_engine_initialized(self) -> None:
                pass

        return Logger(vllm_config, engine_index)
