"""One real Serve instance of echoes behind the shipped router, to be changed under load."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import ray
from ray import serve
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

from tests.integration.conftest import echo_application
from tests.integration.instance import Instance, shipped_config
from tests.plain_http import CHAT, chat

ROOMY = {"max_ongoing_requests": 4000}  # a slow machine's queue is not what is tested
REPLACED = {"name": "echo", "max_surge_percent": 0}  # as a model is that has weights
STEADY = ("steady", "scaled", "rolled", "replaced")


class Changing:
    """The instance, and the ways to change it that an operator has."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        context = ray.init(instance.gcs_address(), namespace="serve", logging_level="error")
        self._dashboard_url = f"http://{context.dashboard_url}"

    @property
    def url(self) -> str:
        return self.instance.url

    @property
    def applications(self) -> dict[str, dict[str, Any]]:
        """A copy of what is deployed now, by name, to be changed and deployed."""
        return {a["name"]: copy.deepcopy(a) for a in self.instance.config["applications"]}

    def deploy(self, applications: dict[str, dict[str, Any]]) -> None:
        self.instance.config["applications"] = list(applications.values())
        self.instance.deploy(self._dashboard_url)

    def replicas(self, application: str) -> dict[str, int]:
        """How many replicas there are by Serve's state; none are told of while it is built."""
        deployments = serve.status().applications[application].deployments.values()
        return {str(state): num for d in deployments for state, num in d.replica_states.items()}

    def answers(self, model: str) -> bool:
        """Whether a model answers now."""
        return httpx2.post(self.url + CHAT, json=chat(model=model), timeout=120).status_code == 200

    @property
    def models(self) -> set[str]:
        """The names that clients may send now."""
        _, body = self.instance.get("/v1/models")
        return {model["id"] for model in body["data"]} if body else set()

    def reason(self, application: str) -> str | None:
        """What operators are told is wrong with it; empty: nothing. None: they are told nothing of
        it at all."""
        row = self.instance.application(application)
        return str(row["reason"] or "") if row else None

    def pids(self, application: str) -> set[int]:
        """The processes of its replicas, those that are being drained included."""
        return self.instance.pids(f"ray::ServeReplica:{application}:")

    def logs(self, application: str) -> dict[int, Path]:
        """The log of each replica that has a process now, by its id."""
        details = ServeSubmissionClient(self._dashboard_url).get_serve_details()
        deployments = details["applications"][application]["deployments"].values()
        replicas = [replica for d in deployments for replica in d["replicas"]]
        logs = self.instance.logs
        started = [r for r in replicas if r.get("pid") and r.get("log_file_path")]
        return {r["pid"]: logs / r["log_file_path"].lstrip("/") for r in started}

    def wait_status(self, application: str, status: str) -> None:
        """Returns when Serve says this of it. A build that fails is tried four times."""
        self.instance.wait(lambda: serve.status().applications[application].status == status)

    def wait_settled(self, application: str, num_replicas: int) -> None:
        """Returns when so many run, and nothing is starting or being drained any more."""
        self.instance.wait(lambda: self.replicas(application) == {"RUNNING": num_replicas})


@pytest.fixture(scope="package")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Changing]:
    config = shipped_config()
    router = config["applications"][0]
    router["deployments"][0]["user_config"] = {"hold_s": 100, "max_held_requests": 4000}
    config["applications"] = [router, *(echo_application(name, **ROOMY) for name in STEADY)]
    config["applications"][-1]["deployments"] = [REPLACED]
    instance = Instance(tmp_path_factory.mktemp("changing"), config, {})
    try:
        instance.start()
        yield Changing(instance)
    finally:
        ray.shutdown()  # a client of Ray ends its whole process when its cluster goes
        instance.stop()
