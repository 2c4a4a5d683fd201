"""The lines that one request leaves in the log, at the router and at the backend."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextvars import Context
from typing import Any

import pytest

from deployments.api import ApiBackend
from deployments.config import ApiConfig, ApiModel, EchoConfig
from deployments.current_request import request_id
from deployments.exchange import Exchange
from deployments.testing import EchoBackend
from serve_app.answering import told
from serve_app.config import RouterSettings
from serve_app.directory import Application
from serve_app.guard import digest
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving
from tests.plain_http import CHAT, chat, post, request
from tests.polling import until

ID = {"x-request-id": "find-me"}
SECRETS = ("sk-canary-key", "canary-prompt", "canary-model", "canary-path", "canary-query")


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "roundhouse.access"):
        yield caplog


def hops(caplog: pytest.LogCaptureFixture) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the router's lines say, and the backend's."""
    facts = [vars(record) for record in caplog.records if record.name == "roundhouse.access"]
    return [f for f in facts if "method" in f], [f for f in facts if "method" not in f]


@pytest.mark.parametrize("stream", [False, True])
async def test_each_hop_has_one_line(
    url: str, app: RouterApp, lines: pytest.LogCaptureFixture, stream: bool
) -> None:
    """One line of the router and one of the backend tell what a request was, with its id, how it
    ended, how long it took and what it cost."""
    app.settings = RouterSettings(aliases={"nick": "demo"})
    await post(url + CHAT, chat("one two", "nick", stream=stream), ID)
    (router,), (backend,) = hops(lines)
    shared = {
        "request_id": "find-me",
        "path": CHAT,
        "status": 200,
        "model": "demo",
        "backend": "echo",
        "prompt_tokens": 2,
        "completion_tokens": 2,
    }
    more = {"method": "POST", "served_by": "demo", "stream": stream}
    assert {name: router[name] for name in (*shared, *more)} == shared | more
    assert {name: backend[name] for name in shared} == shared
    assert 0 < backend["first_byte_s"] <= backend["duration_s"] < router["duration_s"]
    assert router["first_byte_s"] <= router["duration_s"]
    assert "error" not in router | backend
    text = router["message"]
    assert text.startswith(f"POST {CHAT} 200 ")
    assert "model=demo served_by=demo backend=echo" in text


async def test_a_fallback_is_told(
    url: str, app: RouterApp, lines: pytest.LogCaptureFixture
) -> None:
    """Who was asked for, who answered in its place, and at which attempt."""
    app.settings = RouterSettings(fallbacks={"demo": ["api"]})
    await post(url + CHAT, chat("[[fail]] x"))
    (router,), backends = hops(lines)
    assert (router["status"], router["error"]) == (503, "model_unavailable")
    assert [(b["model"], b["status"], b["error"]) for b in backends] == [
        ("demo", 503, "model_unavailable")
    ]
    assert router["levelname"] == backends[0]["levelname"] == "WARNING"


async def test_attempts_are_counted(lines: pytest.LogCaptureFixture) -> None:
    """A request that another model answered says so, and that it took two attempts."""
    nowhere = ApiModel(upstream_model="up", base_url="http://127.0.0.1:1/v1", api_key_env=None)
    api = ApiBackend("api", ApiConfig(models={"api": nowhere}))
    await api.start()
    app = RouterApp(LocalCluster({"api": api, "echo": EchoBackend("echo", EchoConfig())}))
    app.settings = RouterSettings(fallbacks={"api": ["echo"]})
    async with serving(app) as url:
        assert (await post(url + CHAT, chat("x", "api"), ID)).status == 200
    await api.stop()
    (router,), (failed, answered) = hops(lines)
    assert (router["model"], router["served_by"], router["attempts"]) == ("api", "echo", 2)
    assert (failed["status"], failed["error"]) == (502, "upstream_error")
    assert (answered["model"], answered["request_id"]) == ("echo", "find-me")


async def test_a_broken_stream_is_told(url: str, lines: pytest.LogCaptureFixture) -> None:
    """A stream that went wrong has its status and its error, at both hops."""
    await post(url + CHAT, chat("a [[fail]]", stream=True))
    (router,), (backend,) = hops(lines)
    assert (router["status"], router["error"]) == (200, "model_unavailable")
    assert (backend["status"], backend["error"]) == (200, "model_unavailable")


async def test_a_client_that_leaves_is_told(
    url: str, cluster: LocalCluster, lines: pytest.LogCaptureFixture
) -> None:
    """Nobody was told a status: 499 at the router, and the backend's work was cancelled."""
    task = asyncio.create_task(post(url + CHAT, chat("a [[wait]]")))
    await until(lambda: cluster.backends["demo"].num_running == 1)
    task.cancel()
    await until(lambda: all(hops(lines)))
    (router,), (backend,) = hops(lines)
    assert (router["status"], backend["status"], backend["error"]) == (499, 499, "cancelled")


async def test_waiting_is_told(
    url: str, app: RouterApp, cluster: LocalCluster, lines: pytest.LogCaptureFixture
) -> None:
    """How long a request was held for a model that was starting."""
    cluster.states["demo"] = Application("demo", "echo", "cold", 0.0)
    await app.directory.refresh()
    held = asyncio.create_task(post(url + CHAT, chat()))
    await until(lambda: bool(cluster.wakes))
    cluster.awake.set()
    await held
    (router,), _ = hops(lines)
    assert 0 < router["held_s"] <= router["first_byte_s"]


async def test_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of what a client wrote is in a line but its request's id: no key, no prompt, no name
    of a model or a path that is not there."""
    cluster = LocalCluster({"demo": EchoBackend("demo", EchoConfig())})
    caplog.set_level(logging.DEBUG, "roundhouse")
    caplog.set_level(logging.DEBUG, "deployments")
    key = {"authorization": "Bearer sk-canary-key"}
    async with serving(RouterApp(cluster, [digest("sk-canary-key")])) as url:
        for text in ("canary-prompt", "canary-prompt [[crash]]", "canary-prompt [[fail]]"):
            for stream in (False, True):
                await post(url + CHAT, chat(text, stream=stream), key)
        await post(url + CHAT, chat("x", "canary-model"), key)
        await post(url + CHAT, b'{"model":"demo","messages":"canary-prompt', key)
        await post(url + CHAT, chat("x"), {"authorization": "Bearer sk-canary-key-2"})
        await request("GET", f"{url}/v1/models/canary-model?a=canary-query", key)
        await request("GET", f"{url}/canary-path", key)
        await request("POST", f"{url}/v1/chat/completions/canary-path/%2e", key)
    everything = json.dumps([vars(r) for r in caplog.records], default=str)
    assert len(hops(caplog)[0]) == 12
    assert [canary for canary in SECRETS if canary in everything] == []


async def test_probes_have_no_line(
    url: str, app: RouterApp, cluster: LocalCluster, lines: pytest.LogCaptureFixture
) -> None:
    """Who asks every second whether all is well fills no log, whatever the answer."""
    assert (await request("GET", url + "/health")).status == 200
    assert (await request("GET", url + "/ready")).status == 200
    cluster.states["demo"] = Application("demo", "echo", "failed", 0.0)
    await app.directory.refresh()
    assert (await request("GET", url + "/ready")).status == 503
    await request("GET", url + "/v1/models/demo")
    (router,), _ = hops(lines)
    assert (router["path"], router["status"]) == ("/v1/models/{model}", 200)


@pytest.mark.parametrize(("share", "expected"), [(1, (1, 1)), (1e-12, (0, 1)), (0, (0, 0))])
async def test_a_share_is_logged(
    cluster: LocalCluster,
    lines: pytest.LogCaptureFixture,
    share: float,
    expected: tuple[int, int],
) -> None:
    """Of successes as many as were asked for have lines, at all hops or at none; failures have
    lines unless none are wanted at all."""
    successes, failures = expected
    app = RouterApp(cluster)
    app.settings = RouterSettings(access_log=share)
    async with serving(app) as url:
        await post(url + CHAT, chat("x"))
        assert [len(hop) for hop in hops(lines)] == [successes, successes]
        lines.clear()
        await post(url + CHAT, chat("[[fail]]"))
    assert len(hops(lines)[0]) == failures


async def test_lines_of_the_engine_have_the_id() -> None:
    """What a backend logs while it works on a request, on a replica that knows nothing of the
    router's task, can be found by the request's id."""
    seen: list[str | None] = []

    class Noting(EchoBackend):
        async def exchange(self, asked: Any) -> Any:
            seen.append(request_id.get())
            async for item in super().exchange(asked):
                seen.append(await asyncio.to_thread(request_id.get))
                yield item

    async def answered() -> None:
        body = json.dumps(chat("a b", stream=True)).encode()
        asked = Exchange(CHAT, body, "find-me", "demo")
        _ = [item async for item in told(Noting("demo", EchoConfig()), asked)]

    await asyncio.get_running_loop().create_task(answered(), context=Context())
    assert set(seen) == {"find-me"}
