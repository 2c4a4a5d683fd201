"""One real Serve instance for the suite: the shipped configuration, and echoes beside it."""

import copy
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
import ray
from ray import serve
from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

from deployments.exchange import Backend
from tests.integration.instance import Instance, shipped_config
from tests.integration.upstream import upstream

UPSTREAM_MODELS = ("gpt-5.6-sol", "gpt-5.6-terra")
KEY = "sk-integration-key-that-must-not-leak"


def echo_application(name: str, **args: Any) -> dict[str, Any]:
    """A model application that costs next to nothing."""
    application: dict[str, Any] = copy.deepcopy(shipped_config()["applications"][1])
    application.update(name=name, args={"backend": "echo", "num_cpus": 0.05, **args})
    return application


def test_config() -> dict[str, Any]:
    """The shipped file with two echoes, and a model whose key is not set."""
    config = shipped_config()
    applications = {application["name"]: application for application in config["applications"]}
    applications["api"]["args"]["models"]["keyless"] = {
        "upstream_model": "any",
        "api_key_env": "ROUNDHOUSE_TEST_KEY_THAT_IS_NOT_SET",
    }
    models = applications["api"]["args"]["models"]
    models["counted"] = dict(models["gpt-4"])  # for one test alone
    settings = applications["router"]["deployments"][0]["user_config"]
    settings["fallbacks"]["echo"] = ["demo-hf"]
    config["applications"] += [echo_application("echo"), echo_application("echo-too")]
    return config


@dataclass(frozen=True, slots=True)
class Roundhouse:
    """The instance under test, and means to look inside."""

    instance: Instance
    upstream: list[Backend]
    dashboard_url: str
    discovery_file: Path  # where Ray tells Prometheus what to scrape
    num_running: Callable[[str, str], int]


@pytest.fixture(scope="package")
def roundhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roundhouse]:
    folder = tmp_path_factory.mktemp("instance")
    with upstream(*UPSTREAM_MODELS) as (base_url, backends):
        environment = {
            "OPENAI_BASE_URL": base_url,
            "OPENAI_API_KEY": KEY,
            # How often metrics are told. Ray forgets gauges after twice that, and its agents tell
            # of nodes every 5 s.
            "RAY_metrics_report_interval_ms": "3000",
        }
        instance = Instance(folder, test_config(), environment)
        try:
            instance.start()
            yield _connected(instance, backends)
        finally:
            ray.shutdown()  # a client of Ray ends its whole process when its cluster goes
            instance.stop()


def _connected(instance: Instance, backends: list[Backend]) -> Roundhouse:
    context = ray.init(instance.gcs_address(), namespace="serve", logging_level="error")

    handle = cache(
        lambda application, deployment: serve.get_deployment_handle(deployment, application)
    )

    def num_running(application: str, deployment: str) -> int:
        return int(handle(application, deployment).num_running.remote().result(timeout_s=30))

    session = Path(context.address_info["session_dir"])
    discovery_file = session / PROMETHEUS_SERVICE_DISCOVERY_FILE
    dashboard_url = f"http://{context.dashboard_url}"
    return Roundhouse(instance, backends, dashboard_url, discovery_file, num_running)


@pytest_asyncio.fixture(loop_scope="session")
async def client(roundhouse: Roundhouse) -> AsyncIterator[openai.AsyncOpenAI]:
    """The real client, strict about every answer's shape, and never trying twice."""
    async with openai.AsyncOpenAI(
        base_url=f"{roundhouse.instance.url}/v1",
        api_key="unused",
        max_retries=0,
        _strict_response_validation=True,
    ) as found:
        yield found
