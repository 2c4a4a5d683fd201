"""The guard of engine processes, on real ones: a replica that starts an engine, and is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.polling import PATIENCE_S

REPLICA = """
import multiprocessing, threading
from deployments.vllm_engine.guard import EngineGuard

def engine():
    threading.Event().wait()

if __name__ == "__main__":
    guard = EngineGuard()
    with guard.learning():
        process = multiprocessing.get_context("spawn").Process(target=engine)
        process.start()
    print(process.pid, flush=True)
    input()
    process.kill()
    process.join()
    guard.release()
    guard.release()
    print("over", flush=True)
    input()
"""


@pytest.fixture
def replica(tmp_path: Path) -> "subprocess.Popen[str]":
    file = tmp_path / "replica.py"
    file.write_text(REPLICA)
    return subprocess.Popen(
        [sys.executable, file],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )


def test_an_engine_ends_with_a_replica_that_is_killed(replica: "subprocess.Popen[str]") -> None:
    """Without a word of the replica, and without Ray; the guard itself ends too."""
    assert replica.stdout is not None
    engine = psutil.Process(int(replica.stdout.readline()))
    guard = [child for child in psutil.Process(replica.pid).children() if child.name() == "sh"]
    assert len(guard) == 1
    os.kill(replica.pid, signal.SIGKILL)
    replica.communicate()
    _, alive = psutil.wait_procs([engine, *guard], timeout=PATIENCE_S)
    assert alive == []


def test_what_was_ended_in_order_is_guarded_no_more(replica: "subprocess.Popen[str]") -> None:
    """After `release` the guard is gone, so that it never kills who is given the engine's pid."""
    assert replica.stdout is not None
    assert replica.stdin is not None
    replica.stdout.readline()
    replica.stdin.write("\n")
    replica.stdin.flush()
    assert replica.stdout.readline() == "over\n"
    names = [child.name() for child in psutil.Process(replica.pid).children()]
    assert "sh" not in names
    replica.communicate("\n")
