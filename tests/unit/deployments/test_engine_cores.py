"""An engine's cores, on real processes: this one, an engine, and its bound worker."""

import json
import os
import subprocess
import sys

import pytest

WORKER = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True); input()"
ENGINE = """
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]])
worker.wait()
"""
SERVER = """
import json, os, subprocess, sys, threading, psutil
from deployments.vllm_engine.cores import EngineCores

worker, engine, core = sys.argv[1:]
idle = threading.Event()
threading.Thread(target=idle.wait, daemon=True).start()
child = subprocess.Popen([sys.executable, "-c", engine, worker, core],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()

def threads(pid):
    return [sorted(os.sched_getaffinity(int(t))) for t in os.listdir(f"/proc/{pid}/task")]

cores = EngineCores()
cores.settle()
said = {"own": threads(os.getpid()), "engine": threads(child.pid)}
cores.release()
cores.release()
said["after"] = threads(os.getpid())
child.communicate(b"\\n")
print(json.dumps(said))
"""

few = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="there is one core, and nothing to share out"
)


def settled(worker: str, core: int) -> dict[str, list[list[int]]]:
    command = [sys.executable, "-c", SERVER, worker, ENGINE, str(core)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    found: dict[str, list[list[int]]] = json.loads(said)
    return found


@few
def test_the_engine_joins_its_worker_and_the_server_keeps_off() -> None:
    """With all of their threads; what was given up is taken back at the end."""
    everything = sorted(os.sched_getaffinity(0))
    core = everything[0]
    said = settled(WORKER, core)
    assert said["engine"] == [[core]]
    assert said["own"] == [everything[1:]] * 2
    assert said["after"] == [everything] * 2


@few
def test_workers_that_are_not_bound_change_nothing() -> None:
    """On a machine with a GPU, and where vLLM was told not to bind."""
    free = WORKER.replace("os.sched_setaffinity(0, {int(sys.argv[1])})", "pass")
    everything = sorted(os.sched_getaffinity(0))
    said = settled(free, everything[0])
    assert said["engine"] == [everything]
    assert said["own"] == said["after"] == [everything] * 2
