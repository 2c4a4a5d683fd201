"""While the models start: each change of state is told once, from the router's own words."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from serve_app.launch.progress import Progress, Row, ask
from tests.unit.serve_app.launch_children import plan_at


class ScriptedRouter:
    """A real HTTP server that gives one (status, body) after the other."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.asked: list[tuple[str, str | None]] = []
        router = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                router.asked.append((self.path, self.headers["authorization"]))
                status, body = router.answers.pop(0)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port

    def will_say(self, *rows: dict[str, Any]) -> None:
        self.answers.append((200, json.dumps({"ready": False, "applications": rows}).encode()))


@pytest.fixture
def router() -> Iterator[ScriptedRouter]:
    scripted = ScriptedRouter()
    thread = threading.Thread(target=scripted.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield scripted
    scripted.server.shutdown()
    thread.join()
    scripted.server.server_close()


def row(name: str, state: str, reason: str | None = None) -> dict[str, Any]:
    return {
        "application": name,
        "models": [name],
        "backend": "vllm",
        "state": state,
        "since": 1.5,
        "replicas": {"RUNNING": 1},
        "reason": reason,
    }


def test_a_start_is_told_in_lines(router: ScriptedRouter) -> None:
    """Pages of a proxy without a router say nothing; then every change is one line."""
    router.answers += [(404, b"Path '/-/models' not found."), (503, b"<html>no server</html>")]
    router.will_say(row("a", "warming"))
    router.will_say(row("a", "warming"), row("b", "warming"))
    router.will_say(row("a", "running"), row("b", "failed", "no such checkpoint"))
    progress, told = Progress(["a", "b"]), []
    for second in range(5):
        assert progress.missing
        told.append(list(progress.update(ask(plan_at(router.port)), second)))
    assert told == [
        [],
        [],
        ["a (vllm): warming"],
        ["b (vllm): warming"],
        ["a (vllm): running after 4 s", "b (vllm): failed: no such checkpoint"],
    ]
    assert not progress.missing


def test_a_long_load_is_told_in_tenths(router: ScriptedRouter) -> None:
    """How far a model's weights are is a line for each tenth, not for each look at it."""
    for percent in (1.0, 9.0, 12.5, 19.9, 100.0):
        loading = {"stage": "loading weights", "percent": percent, "total_bytes": 13_500_000_000}
        router.will_say(row("a", "warming") | {"loading": [loading]})
    router.will_say(row("a", "warming") | {"loading": [{"stage": "checking the model"}]})
    router.will_say(row("a", "warming"))
    progress, told = Progress(["a"]), []
    for second in range(7):
        told += progress.update(ask(plan_at(router.port)), second)
    assert told == [
        "a (vllm): warming: loading weights, 0 % of 13.5 GB",
        "a (vllm): warming: loading weights, 10 % of 13.5 GB",
        "a (vllm): warming: loading weights, 100 % of 13.5 GB",
        "a (vllm): warming: checking the model",
    ]


def test_ready_means_what_the_file_names(router: ScriptedRouter) -> None:
    """An application that the router does not know yet is missing, though all it knows run."""
    router.will_say(row("a", "running"))
    progress = Progress(["a", "b"])
    list(progress.update(ask(plan_at(router.port)), 1))
    assert progress.missing == ["b"]


def test_a_cold_application_is_not_waited_for() -> None:
    """It starts with its first request, so waiting for it would never end."""
    progress = Progress(["a"])
    list(progress.update([Row(application="a", models=["a"], backend="api", state="cold")], 1))
    assert progress.missing == []


def test_a_proxy_of_the_environment_is_not_asked(
    router: ScriptedRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The router is on this machine, whatever http_proxy says."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    router.will_say(row("a", "running"))
    assert [found.application for found in ask(plan_at(router.port))] == ["a"]


def test_a_router_with_keys_is_asked_with_one(router: ScriptedRouter) -> None:
    """The operator's list asks for a key like the models do; the first that there is will do."""
    router.answers += [(200, b"{}"), (200, b"{}")]
    ask(plan_at(router.port))
    ask(plan_at(router.port, api_keys="first, second"))
    assert router.asked == [("/-/models", None), ("/-/models", "Bearer first")]


def test_nobody_there() -> None:
    """A port where nobody listens is a router that is not up yet."""
    assert ask(plan_at(9)) == []
