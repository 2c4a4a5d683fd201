"""The launcher with a small program in the place of `serve run`: it ends all, whoever wants it."""

import signal

import psutil
import pytest

from benchmarks.stack import free_port
from tests.polling import PATIENCE_S
from tests.unit.serve_app.launch_children import launched, read_until, running

# A router with one model, and an engine beside it that outlives its parent.
ROUTER = """
import http.server, json, subprocess, sys
subprocess.Popen(["sleep", "60"], start_new_session=True)
row = {"application": "demo", "models": ["demo"], "backend": "vllm", "state": "running"}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"ready": True, "applications": [row]}).encode())
try:
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
except KeyboardInterrupt:
    pass
"""

DEAF = """
import signal
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
while True:
    signal.pause()
"""


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ready_and_then_stopped(asked: signal.Signals) -> None:
    """It says when the model runs; any of the three signals ends it and all it started, with 0."""
    with running(launched(ROUTER, free_port())) as launcher:
        assert "demo (vllm): running after" in read_until(launcher, "Ctrl-C stops everything.")
        children = psutil.Process(launcher.pid).children(recursive=True)
        assert {child.name() for child in children} > {"sleep"}
        launcher.send_signal(asked)
        output, _ = launcher.communicate()
    assert output.endswith("all stopped\n")
    assert launcher.returncode == 0
    assert psutil.wait_procs(children, timeout=PATIENCE_S)[1] == []


def test_a_second_ctrl_c_stops_at_once() -> None:
    """One that does not react to the first is killed without waiting out the limits, which are an
    hour here."""
    with running(launched(DEAF, limit_s=3600)) as launcher:
        read_until(launcher, "Starting")
        launcher.send_signal(signal.SIGINT)
        read_until(launcher, "Ctrl-C again")
        launcher.send_signal(signal.SIGINT)
        output, _ = launcher.communicate(timeout=PATIENCE_S)
    assert output == "all stopped\n"


@pytest.mark.parametrize(
    ("child", "status"),
    [
        ("print('no GPU here'); raise SystemExit(3)", 3),
        ("import os; print('no GPU here', flush=True); os.abort()", 128 + signal.SIGABRT),
    ],
)
def test_a_child_that_ends_by_itself(child: str, status: int) -> None:
    """Its last words are seen, its exit status is passed on, and nothing claims to be ready."""
    with running(launched(child)) as launcher:
        output, log = launcher.communicate()
    assert "no GPU here" in log
    assert "ended by itself" in log
    assert "all stopped" not in output
    assert launcher.returncode == status
