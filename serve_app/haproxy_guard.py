"""HAProxy goes with its node's raylet, however that ends.

Ray ends what a worker has started when the worker dies, HAProxy too, as long as the raylet lives
that does it. When that is killed its workers end by themselves, and HAProxy, which nobody told,
would keep the port, and answer for routers that are no more, beside the HAProxy of the next start.
"""

import os
import subprocess
from contextlib import suppress

import ray

PATIENCE_S = 10  # `ray stop --force` kills workers and raylet in any order
# What ran out here is asked to stop: it takes nothing more, and ends what it carries.
SCRIPT = """
read -r raylet node patience_s
read -r _
while kill -0 "$raylet" 2>/dev/null; do
  [ "$patience_s" -gt 0 ] || exit 0
  patience_s=$((patience_s - 1))
  sleep 1
done
for file in $(grep -la "/$node/haproxy.cfg" /proc/[0-9]*/cmdline 2>/dev/null); do
  pid=${file#/proc/}
  kill -USR1 "${pid%/cmdline}" 2>/dev/null
done
"""
_guards: list["subprocess.Popen[bytes]"] = []  # whose pipes tell them that this process is gone


def start() -> None:
    """Guards the HAProxy of this node. Serve's controller calls it by its name in serve_config.yaml
    (RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH), and every replica of ours when it starts."""
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        guard(os.getppid(), ray.get_runtime_context().get_node_id())


def guard(raylet_pid: int, node_id: str, patience_s: int = PATIENCE_S) -> None:
    """Starts a shell that waits for the end of this process, and then looks whether the raylet has
    ended as well. Without a shell there is no guard, and nothing else fails."""
    with suppress(OSError):
        shell = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert shell.stdin is not None
        shell.stdin.write(f"{raylet_pid} {node_id} {patience_s}\n".encode())
        shell.stdin.flush()
        _guards.append(shell)
