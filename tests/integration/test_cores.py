"""Who takes which core where the demo's engine computes without a GPU."""

import os

import psutil
import pytest

from tests.integration.conftest import Roundhouse


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core")
def test_the_engine_has_its_cores_for_itself(roundhouse: Roundhouse) -> None:
    """vLLM's core process sits beside its worker, and the replica that serves answers elsewhere."""
    replica = psutil.Process(roundhouse.instance.replicas()["demo:vllm"])
    (engine,) = (c for c in replica.children() if "EngineCore" in " ".join(c.cmdline()))
    (worker,) = (c for c in engine.children() if "Worker" in " ".join(c.cmdline()))
    assert set(engine.cpu_affinity()) == set(worker.cpu_affinity())
    assert not set(replica.cpu_affinity()) & set(worker.cpu_affinity())
