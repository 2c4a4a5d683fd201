"""Several Ray nodes on this machine, whose GPUs and labels are only declared, and Serve on them.

In Ray's own way of testing schedulers: the nodes are real raylets, what they have is made up.
"""

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import ray
from ray.serve._private.api import serve_start
from ray.serve.config import HTTPOptions
from ray.serve.schema import ServeDeploySchema, ServeInstanceDetails

from benchmarks.stack import free_port
from serve_app.placement.node import ACCELERATOR
from tests.ray_nodes import ray_nodes

ENVIRONMENT = {
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # as in serve_config.yaml
    "RAY_SERVE_SLOW_STARTUP_WARNING_S": "3",
    "RAY_SERVE_SLOW_STARTUP_WARNING_PERIOD_S": "3",
}
HEAD: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False}


def cpu_node(num_cpus: int) -> dict[str, Any]:
    return {"num_cpus": num_cpus}


def gpu_node(num_gpus: int, accelerator: str) -> dict[str, Any]:
    resources = {ACCELERATOR + accelerator: 1}
    labels = {"kind": accelerator.lower()}  # Ray sets its own label where it finds real GPUs
    return {"num_cpus": 8, "num_gpus": num_gpus, "resources": resources, "labels": labels}


class Simulated:
    """Serve on the nodes of the cluster."""

    def __init__(self) -> None:
        self.port = free_port()
        http = HTTPOptions(host="127.0.0.1", port=self.port)
        self._client = serve_start(proxy_location="HeadOnly", http_options=http)

    def deploy(self, applications: list[dict[str, Any]]) -> None:
        self._client.deploy_apps(ServeDeploySchema(applications=applications))

    def kinds(self) -> dict[str, str]:
        """The kind of each node by its id."""
        return {n["NodeID"]: n["Labels"].get("kind", "cpu") for n in ray.nodes()}

    def details(self) -> dict[str, Any]:
        """What Serve says of itself."""
        found: dict[str, Any] = self._client.get_serve_details()
        return found

    def nodes_of(self, application: str) -> list[str]:
        """What kind of node each running replica is on: "cpu", or the GPU node's own label."""
        kinds = self.kinds()
        details = ServeInstanceDetails(**self.details())
        deployments = details.applications[application].deployments.values()
        replicas = [r for d in deployments for r in d.replicas if r.state == "RUNNING"]
        return sorted(kinds[str(replica.node_id)] for replica in replicas)

    def rows(self) -> dict[str, dict[str, Any]]:
        """/-/models by application."""
        _, body = self.request("/-/models")
        return {row["application"]: row for row in body["applications"]} if body else {}

    def request(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, None
        except OSError:
            return 0, None

    def wait(self, condition: Callable[[], Any], limit_s: float = 120) -> None:
        """Polls until the condition holds."""
        pause = Event()
        for _ in range(int(limit_s / 0.25)):
            if condition():
                return
            pause.wait(0.25)
        raise AssertionError(self.rows())


@contextlib.contextmanager
def simulated(*nodes: dict[str, Any]) -> Iterator[Simulated]:
    """A head without CPUs, and these nodes."""
    with ray_nodes(ENVIRONMENT, HEAD, *nodes) as (cluster, _):
        ray.init(cluster.address, namespace="serve", logging_level="error", log_to_driver=False)
        yield Simulated()
