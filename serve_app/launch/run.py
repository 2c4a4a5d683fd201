"""One run of `serve`, as the set of its processes: how they are marked, found and ended.

Ray's processes, HAProxy and vLLM's engines leave process groups and outlive their parents; what
all of them keep is the environment they inherit. Only processes that carry the mark are touched.
"""

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress

import psutil

MARK = "ROUNDHOUSE_RUN"
POLL_S = 0.1
DASHBOARD = "ray/dashboard/dashboard.py"
LOCAL = {"127.0.0.1", "0.0.0.0"}

DEFAULTS = {
    "PYTHONUNBUFFERED": "1",
    # A replica that is killed takes its engine processes with it.
    # https://docs.ray.io/en/latest/ray-core/user-spawn-processes.html
    "RAY_process_group_cleanup_enabled": "1",
    # For load balancers that must see a replica go. There is none here, and it delays the end.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.1",
    # setproctitle would write its title over the environment that the mark is read from.
    "SPT_NOENV": "1",
}


def new_run() -> str:
    """A mark that no other run has, and that tells who launched it."""
    return f"{os.getpid()}-{uuid.uuid4().hex}"


def environment(run: str, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a run's first process: what the operator has set wins over DEFAULTS."""
    return {**DEFAULTS, **base, MARK: run}


def members(run: str) -> list[psutil.Process]:
    """The processes of a run that live, oldest first."""
    return [process for process, mark in _marked() if mark == run]


def dashboard(run: str) -> str | None:
    """Where a run's cluster takes deployments; None while it does not say."""
    for process in members(run):
        try:
            if DASHBOARD in " ".join(process.cmdline()):
                for connection in process.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN and connection.laddr.ip in LOCAL:
                        return f"http://127.0.0.1:{connection.laddr.port}"
        except psutil.Error:  # gone, or not ours to look at
            continue
    return None


def left_over() -> list[psutil.Process]:
    """The processes of runs whose launcher is gone: it was killed, and could not clean up."""
    return [process for process, mark in _marked() if not _launcher_lives(process, mark)]


def end(run: str, patience_s: float) -> list[psutil.Process]:
    """Ends every process of a run, and those that they still start; returns what is left of it.

    They are asked first, and killed after `patience_s`.
    """
    for signal_each, wait_s in ((psutil.Process.terminate, patience_s), (psutil.Process.kill, 5.0)):
        deadline = time.monotonic() + wait_s
        signalled: set[psutil.Process] = set()
        while (living := members(run)) and time.monotonic() < deadline:
            for process in set(living) - signalled:
                with suppress(psutil.NoSuchProcess):
                    signal_each(process)
            signalled.update(living)
            time.sleep(POLL_S)
    return members(run)


def _marked() -> Iterator[tuple[psutil.Process, str]]:
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK)
        except (psutil.Error, OSError):  # of another user, or gone
            continue
        if mark:
            yield process, mark


def _launcher_lives(process: psutil.Process, mark: str) -> bool:
    try:
        launcher = psutil.Process(int(mark.partition("-")[0]))
        # A younger process has been given the number of one that is gone.
        return bool(launcher.create_time() <= process.create_time())
    except (psutil.Error, ValueError):
        return False
