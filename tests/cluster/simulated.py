"""Several Ray nodes on this machine, whose GPUs and labels are only declared, and Serve on them.

In Ray's own way of testing schedulers: the nodes are real raylets, what they have is made up.
"""

import contextlib
import gc
import json
import os
import tempfile
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.serve._private.api import serve_start
from ray.serve.config import HTTPOptions
from ray.serve.context import _set_global_client
from ray.serve.schema import ServeDeploySchema, ServeInstanceDetails

from serve_app.placement.node import ACCELERATOR
from tests.integration.instance import free_port

ENVIRONMENT = {
    "RAY_SERVE_SLOW_STARTUP_WARNING_S": "3",
    "RAY_SERVE_SLOW_STARTUP_WARNING_PERIOD_S": "3",
}
# Its dashboard takes a port all the same; Ray's usual one may be another cluster's.
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
    """A head without CPUs, and these nodes; in a folder of Ray's own, so that no other cluster on
    the machine is met."""
    kept = {name: os.environ.get(name) for name in (*ENVIRONMENT, "RAY_TMPDIR")}
    with tempfile.TemporaryDirectory(prefix="rh", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ.update(ENVIRONMENT, RAY_TMPDIR=str(Path(folder)))  # sockets need a short path
        cluster = Cluster()
        try:
            _add(cluster, HEAD | {"dashboard_port": free_port()}, *nodes)
            ray.init(cluster.address, namespace="serve", logging_level="error", log_to_driver=False)
            yield Simulated()
        finally:
            _set_global_client(None)  # Serve goes with its nodes; by itself it would drain first
            ray.shutdown()
            cluster.shutdown()
            for name, value in kept.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _add(cluster: Cluster, *nodes: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # sockets by which Ray finds free ports
        for node in nodes:
            cluster.add_node(**node)
        gc.collect()
