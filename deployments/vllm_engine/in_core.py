"""Where vLLM computes without a GPU: in the process of its engine core, as it does with one GPU.

By itself it would start a worker process there, so that OpenMP's threads can be bound by that
process's environment. Core and worker then wait for each other in loops, which on few cores costs
more than anything that we add: benchmarks/RESULTS.md. The core process has an environment too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.v1.executor.uniproc_executor import UniProcExecutor


class InCoreExecutor(UniProcExecutor):  # type: ignore[misc] # vLLM is not always installed
    """vLLM's own, under a name that it does not take back where there is no GPU."""


IN_CORE = f"{InCoreExecutor.__module__}.{InCoreExecutor.__qualname__}"


@contextmanager
def openmp_bound(vllm_config: Any) -> Iterator[None]:
    """An engine core that is started in here binds its threads to the cores that vLLM has chosen
    for its worker, by vLLM's own rules (`VLLM_CPU_OMP_THREADS_BIND`)."""
    if vllm_config.parallel_config.distributed_executor_backend != IN_CORE:
        yield
        return
    with OMPProcessManager(vllm_config).configure_omp_envs(rank=0, local_rank=0):
        yield
