"""What a router replica costs by itself: to import, to start, and in memory. Linux only.

The start is measured on a router alone: beside an engine that loads, on a small machine, it would
be the engine's imports that one measures.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from benchmarks.polling import until
from benchmarks.stack import START_LIMIT_S, Stack, answers
from benchmarks.stacks import roundhouse

TITLE = "ray::ServeReplica:router:Router"
REPLICA_PORTS = range(30000, 31001)  # RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT and its MAX
IMPORT = (
    "import time; t = time.perf_counter(); import serve_app.app; print(time.perf_counter() - t)"
)
NUM_IMPORTS = 3
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from the creation of the replica's process until its /health answers."""

    replica_s: float  # on the replica's own port
    proxy_s: float  # through HAProxy


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident set of the replica's process, shared pages included."""

    now_bytes: int
    peak_bytes: int


def import_s() -> float:
    """The median time to import serve_app.app in a fresh interpreter; the first is not counted."""
    return median([_import_once_s() for _ in range(NUM_IMPORTS + 1)][1:])


def _import_once_s() -> float:
    command = [sys.executable, "-c", IMPORT]
    return float(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)


def start(folder: Path) -> Start:
    """Runs a router without models, once. Raises: TimeoutError if it does not come up."""
    stack = roundhouse(folder, models=())
    try:
        stack.start()
        process = until(lambda: replica(stack), START_LIMIT_S, POLL_S)
        created_s = _created_s(process.pid)
        until(lambda: _listens_itself(process), START_LIMIT_S, POLL_S)
        replica_s = _since_boot_s() - created_s
        stack.wait_until_ready()
        return Start(replica_s, _since_boot_s() - created_s)
    finally:
        stack.stop()


def replica(stack: Stack) -> psutil.Process | None:
    """The router's process. Titles are read first: they cost less than environments do."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(TITLE in part for part in process.cmdline()) and process in stack.processes():
                return process
    return None


def memory(stack: Stack) -> Memory:
    """The peak is the kernel's own mark, not the highest of some samples.

    Raises: TimeoutError where there is no router.
    """
    process = until(lambda: replica(stack), limit_s=5, pause_s=0.5)
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return Memory(process.memory_info().rss, int(peak.split()[1]) * 1024)


def _listens_itself(process: psutil.Process) -> bool:
    ports = {c.laddr.port for c in process.net_connections("tcp") if c.status == "LISTEN"}
    return any(answers(port, "/health") for port in ports.intersection(REPLICA_PORTS))


def _created_s(pid: int) -> float:
    """Seconds after boot, to a tick (10 ms); psutil's epoch time is off by up to a second.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, field 22
    """
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(after_name[19]) / os.sysconf("SC_CLK_TCK")


def _since_boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
