"""One system that `roundhouse serve` started: an echo and an API, with JSON logs and traces."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.conftest import echo_application
from tests.integration.instance import Instance, shipped_config
from tests.otlp_collector import Collector, collecting
from tests.plain_http import CHAT, post
from tests.upstream import Upstream

KEY = "sk-canary-of-the-operator"
CLIENTS_SPAN = "00f067aa0ba902b7"


class Launched(Instance):
    """Started as `make serve` does."""

    command = (sys.executable, "-m", "serve_app", "serve")


@dataclass(frozen=True, slots=True)
class Observed:
    """The instance under test, and where what it says arrives."""

    instance: Instance
    upstream: Upstream
    collector: Collector

    def lines(self, request_id: str) -> list[dict[str, Any]]:
        """Every line with that id in the replicas' logs, all of them JSON."""
        texts = [f.read_text() for f in (self.instance.logs / "serve").glob("replica_*.log")]
        written = [text.rpartition("\n")[0] for text in texts]  # the last may be on its way
        lines = [json.loads(line) for text in written for line in text.splitlines()]
        return [line for line in lines if line.get("request_id") == request_id]

    def ask(self, request_id: str, trace_id: str, body: Any, url: str | None = None) -> Any:
        headers = {
            "x-request-id": request_id,
            "traceparent": f"00-{trace_id}-{CLIENTS_SPAN}-01",
            "tracestate": "vendor=1",
            "authorization": "Bearer sk-canary-of-a-client",
        }
        return post((url or self.instance.url) + CHAT, body, headers)


def models(instance: Instance) -> list[str]:
    _, body = instance.get("/v1/models")
    return [model["id"] for model in body["data"]] if body else []


def config() -> dict[str, Any]:
    """The shipped file with JSON and traces, and only what is cheap of its models."""
    found = shipped_config()
    router, *_, api = found["applications"]
    router["deployments"][0]["user_config"] = {"fallbacks": {"echo": ["gpt-4"]}}
    found["applications"] = [router, echo_application("echo"), api]
    found["logging_config"]["encoding"] = "JSON"
    found["tracing_config"] = {
        "enabled": True,
        "exporter_import_path": "serve_app.tracing:exporter",
        "sampling_ratio": 1.0,
    }
    return found


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def observed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Observed]:
    with collecting() as collector:
        async with Upstream() as upstream:
            environment = {
                "OPENAI_BASE_URL": upstream.url,
                "OPENAI_API_KEY": KEY,
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                "OTEL_BSP_SCHEDULE_DELAY": "200",
            }
            folder = tmp_path_factory.mktemp("observed")
            instance = Launched(folder, config(), environment)
            try:
                await asyncio.to_thread(instance.start)
                await asyncio.to_thread(instance.wait, lambda: "gpt-4" in models(instance))
                yield Observed(instance, upstream, collector)
            finally:
                await asyncio.to_thread(instance.stop)
