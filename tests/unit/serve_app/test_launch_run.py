"""The processes of a run: all are found by the mark that they inherit, and all are ended."""

import sys

import psutil

from serve_app.launch import run
from tests.unit.serve_app.launch_children import read_until, running

# A parent that is gone, and a grandchild in its own session that will not go when asked.
STUBBORN = """
import os, signal, subprocess, sys
code = '''
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()
print("grandchild", os.getpid(), flush=True)
signal.pause()
'''
subprocess.Popen([sys.executable, "-c", code])
signal.pause()
"""


def test_every_descendant_is_ended() -> None:
    """One that ignores SIGTERM and has left the session is ended as well."""
    mark = run.new_run()
    with running([sys.executable, "-c", STUBBORN], env={run.MARK: mark}) as parent:
        grandchild = psutil.Process(int(read_until(parent, "grandchild").split()[1]))
        assert {process.pid for process in run.members(mark)} == {parent.pid, grandchild.pid}
        assert run.end(mark, patience_s=0.3) == []
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_others_are_left_alone() -> None:
    """A process of another run, and one of no run, live on."""
    other = {run.MARK: run.new_run()}
    with running(["sleep", "60"]) as unmarked, running(["sleep", "60"], env=other) as marked:
        assert run.end(run.new_run(), patience_s=0.3) == []
        assert unmarked.poll() is None
        assert marked.poll() is None


def test_a_run_under_way_is_not_left_over() -> None:
    """What belongs to a launcher that lives is nothing to complain about."""
    with running(["sleep", "60"], env={run.MARK: run.new_run()}) as process:
        assert process.pid not in {found.pid for found in run.left_over()}


def test_the_operator_wins_over_our_defaults() -> None:
    """A variable that is set stays as it is; the mark is always ours."""
    variable = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
    found = run.environment("mark", {variable: "7", run.MARK: "an outer run"})
    assert (found[variable], found[run.MARK], found["SPT_NOENV"]) == ("7", "mark", "1")
