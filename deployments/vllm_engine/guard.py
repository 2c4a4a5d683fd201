"""Engine processes end with the replica that started them, however that ends.

vLLM's workers watch their engine core, but nothing watches for the core that its own parent is gone
(https://github.com/vllm-project/vllm/issues/55510): after a SIGKILL it would keep its GPU for ever.
Ray can do it, with `RAY_process_group_cleanup_enabled`, as long as the node's raylet lives.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import psutil

LOOK_S = 0.1
# A pid a line, and then, when this process is gone and the pipe with it, the end of all of them.
SCRIPT = 'while read -r pid; do all="$all $pid"; done; [ -z "$all" ] || kill -9 $all 2>/dev/null'


class EngineGuard:
    """A shell that outlives this process by just long enough."""

    def __init__(self) -> None:
        self._shell: subprocess.Popen[bytes] | None = None
        self._known: set[int] = set()

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Guards the processes that are started in this block, from when each is there."""
        self._shell = subprocess.Popen(["/bin/sh", "-c", SCRIPT], stdin=subprocess.PIPE)
        done = Event()
        looking = Thread(target=self._look, args=(done,), daemon=True)
        looking.start()
        try:
            yield
        finally:
            done.set()
            looking.join()
            self._tell()

    def release(self) -> None:
        """Guards no more: who started the processes has ended them. Callable more than once."""
        shell, self._shell = self._shell, None
        self._known.clear()
        if shell is not None:
            shell.kill()
            shell.communicate()

    def _look(self, done: Event) -> None:
        while not done.wait(LOOK_S):
            self._tell()

    def _tell(self) -> None:
        shell = self._shell
        if shell is None or shell.stdin is None:
            return
        found = {child.pid for child in psutil.Process().children()} - {shell.pid}
        for pid in found - self._known:
            with suppress(BrokenPipeError):  # somebody has killed the shell
                shell.stdin.write(f"{pid}\n".encode())
                shell.stdin.flush()
        self._known |= found
