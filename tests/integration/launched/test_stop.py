"""`roundhouse serve` with real Ray: from nothing to an answer, and after Ctrl-C nothing is left.

The last file of its folder: what the others look at is gone then.
"""

import socket
import subprocess
import sys

import psutil

from tests.integration.launched.conftest import Observed
from tests.polling import PATIENCE_S

SNIPPET = "In Python:\n\n"


def kill_haproxys_manager(observed: Observed) -> None:
    """It may be replaced already when this returns; what it had started is gone."""
    titles = {p: " ".join(p.info["cmdline"] or ()) for p in observed.instance.processes()}
    (manager,) = [p for p, title in titles.items() if title.startswith("ray::HAProxyManager")]
    started = manager.children()
    assert "haproxy" in {process.name() for process in started}
    manager.kill()
    _, alive = psutil.wait_procs(started, timeout=PATIENCE_S)
    assert alive == []


def test_ctrl_c_leaves_nothing(observed: Observed) -> None:
    """The printed snippet gets an answer; HAProxy ends with the actor that started it, even if that
    is killed; Ctrl-C ends Ray, replicas and HAProxy, and frees the port."""
    instance = observed.instance
    instance.wait(lambda: "Ctrl-C stops everything." in instance.log)
    told = instance.log
    assert "echo (echo): running after" in told
    assert "api (api): running after" in told
    snippet = told.partition(SNIPPET)[2].partition("\n\n")[0]
    answer = subprocess.run([sys.executable, "-c", snippet], capture_output=True, check=True)
    assert answer.stdout.strip() == b"What is 7 + 5?"  # the echo's answer
    names = {process.name() for process in instance.processes()}
    assert {"raylet", "gcs_server", "haproxy"} <= names
    kill_haproxys_manager(observed)
    assert instance.interrupt() == 0
    assert instance.log.endswith("all stopped\n")
    assert instance.processes() == []
    with socket.create_server(("127.0.0.1", instance.port)):
        pass
