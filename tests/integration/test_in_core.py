"""Where the demo's engine computes on a machine without a GPU."""

import os

import psutil
import pytest

from tests.integration.conftest import Roundhouse


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core")
def test_the_engine_computes_in_its_core_process(roundhouse: Roundhouse) -> None:
    """There is no worker process to wait for, and what computes is bound as vLLM binds a worker."""
    replica = psutil.Process(roundhouse.instance.replicas()["demo:vllm"])
    (engine,) = (c for c in replica.children() if "EngineCore" in " ".join(c.cmdline()))
    assert not [c for c in engine.children() if "Worker" in " ".join(c.cmdline())]
    assert set(engine.cpu_affinity()) < os.sched_getaffinity(0)
