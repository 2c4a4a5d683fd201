"""Runs a serve_config until Ctrl-C. Judges nothing about models: what it tells, the router said.

The log of Ray and Serve goes to stderr as it comes; what is said here goes to stdout.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from serve_app.launch import plan as plans
from serve_app.launch import preflight, run
from serve_app.launch.plan import Plan
from serve_app.launch.progress import Progress, ask
from serve_app.launch.stop_signals import StopSignals
from serve_app.launch.welcome import tool, welcome

STDERR = 2
POLL_S = 0.3
START_LIMIT_S = 15 * 60
REMINDER_S = 60
GRACE_S = 15  # for Serve's own shutdown
PATIENCE_S = 5  # for each process after that, before it is killed


def serve(config: Path) -> int:
    """Serves until Ctrl-C, and leaves no process behind.

    Returns: 0 after Ctrl-C or SIGTERM; 1 if it cannot start; else what `serve run` ended with.
    """
    plan = plans.read(config)
    problems = list(preflight.problems(plan))
    for problem in problems:
        print(f"roundhouse: {problem}", file=sys.stderr)
    if problems:
        return 1
    executable = str(Path(sys.executable).with_name("serve"))
    return supervise([executable, "run", "--address", "local", str(config)], plan)


def supervise(command: Sequence[str], plan: Plan) -> int:
    """Runs the command that serves the plan: tells its progress, and ends all that came of it."""
    mark = run.new_run()
    with StopSignals() as signals:
        # In a session of its own: Ctrl-C reaches it only from here, once and in order.
        child = subprocess.Popen(
            command,
            env=run.environment(mark, os.environ),
            stdin=subprocess.DEVNULL,
            stdout=STDERR,
            start_new_session=True,
        )
        try:
            _watch(child, _Start(plan, mark), signals)
        finally:
            ended_by_itself = child.poll()
            left = _end(child, mark, signals)
    return _conclude(ended_by_itself, left)


def _watch(child: "subprocess.Popen[bytes]", start: "_Start", signals: StopSignals) -> None:
    """Returns when the child has ended, or the operator wants it to."""
    while child.poll() is None and not signals.count:
        start.step()
        time.sleep(POLL_S)


class _Start:
    """The time until every application runs or has failed, told step by step."""

    def __init__(self, plan: Plan, mark: str) -> None:
        _say(f"Starting Ray and {len(plan.applications)} model applications; the log is Ray's.")
        self._plan = plan
        self._mark = mark
        self._progress = Progress(plan.applications)
        self._began = self._spoke = time.monotonic()
        self._over = False

    def step(self) -> None:
        """Tells what has changed; once the start is over, nothing more."""
        if self._over:
            return
        now = time.monotonic()
        for line in self._progress.update(ask(self._plan), now - self._began):
            self._tell(line, now)
        late = now - self._began > START_LIMIT_S
        self._over = late or not self._progress.missing
        if self._over:
            if late:
                minutes, missing = START_LIMIT_S // 60, ", ".join(self._progress.missing)
                self._tell(f"After {minutes} min these still do not run: {missing}.", now)
            rows, address = self._progress.rows, run.dashboard(self._mark)
            self._tell(welcome(self._plan, rows, address), now)
        elif now - self._spoke > REMINDER_S:
            self._tell(self._reminder(now - self._began), now)

    def _reminder(self, elapsed_s: float) -> str:
        if self._progress.rows:
            return f"Still waiting after {elapsed_s:.0f} s for: {', '.join(self._progress.missing)}"
        asking = f"`{tool('status')}` from another shell may say why."
        return f"The router does not answer after {elapsed_s:.0f} s. {asking}"

    def _tell(self, line: str, now: float) -> None:
        self._spoke = now
        _say(line)


def _end(child: "subprocess.Popen[bytes]", mark: str, signals: StopSignals) -> list[int]:
    """Serve's own shutdown first; a second Ctrl-C, or its limit, cuts it short.

    Returns: the pids that even SIGKILL has not ended.
    """
    if child.poll() is None:
        _say("\nStopping; Ctrl-C again to stop at once.")
        child.send_signal(signal.SIGINT)
    deadline = time.monotonic() + GRACE_S
    while child.poll() is None and signals.count < 2 and time.monotonic() < deadline:
        time.sleep(run.POLL_S)
    left = run.end(mark, PATIENCE_S if signals.count < 2 else 0)
    child.poll()
    return [process.pid for process in left]


def _conclude(ended_by_itself: int | None, left: list[int]) -> int:
    if left:
        print(f"roundhouse: cannot end the processes {left}", file=sys.stderr)
        return 1
    if ended_by_itself is None:
        _say("all stopped")
        return 0
    print(
        f"roundhouse: `serve run` ended by itself (exit status {ended_by_itself}); the reason is "
        "in its last lines above. All its processes are stopped.",
        file=sys.stderr,
    )
    return ended_by_itself if ended_by_itself >= 0 else 128 - ended_by_itself


def _say(line: str) -> None:
    print(line, flush=True)
