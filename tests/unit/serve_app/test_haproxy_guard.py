"""The guard of HAProxy, on real processes that stand for it, a raylet and a replica."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from secrets import token_hex

import psutil
import pytest

from tests.polling import PATIENCE_S
from tests.unit.serve_app.launch_children import read_until, running

NODE, ANOTHER = (token_hex(28) for _ in range(2))  # of no other run of these tests
HAPROXY = 'trap "exit 3" USR1; trap "exit 4" TERM; echo up; while :; do sleep 0.05; done'
REPLICA = """
import sys
from serve_app.haproxy_guard import guard
guard(int(sys.argv[1]), sys.argv[2], patience_s=1)
print("guarded", flush=True)
input()
"""


class Node:
    """The processes of a node, and the HAProxy of another one beside them."""

    def __init__(self, stack: ExitStack) -> None:
        self.raylet = stack.enter_context(running(["sleep", "60"]))
        self.haproxy, self.another = (
            stack.enter_context(
                running(["sh", "-c", HAPROXY, "haproxy", f"/tmp/haproxy-serve/{node}/haproxy.cfg"])
            )
            for node in (NODE, ANOTHER)
        )
        command = [sys.executable, "-c", REPLICA, str(self.raylet.pid), NODE]
        env = {"PYTHONPATH": os.getcwd()}
        self.replica = stack.enter_context(running(command, env=env))
        for process, word in ((self.haproxy, "up"), (self.another, "up")):
            read_until(process, word)
        read_until(self.replica, "guarded")
        (self.guard,) = psutil.Process(self.replica.pid).children()

    def end_guard(self) -> None:
        """Kills the replica, and waits until its guard has done what it does."""
        self.replica.kill()
        self.replica.wait()
        _, alive = psutil.wait_procs([self.guard], timeout=PATIENCE_S)
        assert alive == []


@pytest.fixture
def node() -> Iterator[Node]:
    with ExitStack() as stack:
        yield Node(stack)


def test_haproxy_goes_with_its_raylet(node: Node) -> None:
    """When a raylet is killed, and so its workers end, the HAProxy of that node is asked to stop,
    which lets it end what it carries; that of another node is left alone."""
    node.raylet.kill()
    node.raylet.wait()
    node.end_guard()
    assert node.haproxy.wait(PATIENCE_S) == 3
    assert node.another.poll() is None


def test_haproxy_stays_while_its_raylet_lives(node: Node) -> None:
    """A replica that goes, or dies, takes no HAProxy with it."""
    node.end_guard()
    node.haproxy.terminate()  # a signal before this one would have come first
    assert node.haproxy.wait(PATIENCE_S) == 4
