"""A cluster of several real Ray nodes on this machine, deployed to as an operator would."""

import gc
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import ray
import yaml
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.context import _set_global_client

from serve_app.launch import run
from serve_app.launch.plan import SIDE_PORTS
from tests.integration.instance import free_port, shipped_config

WORKER = {"num_cpus": 2}
# Serve gives up a proxy, and with it the first deployment, that takes 5 s to start.
SLOW_MACHINE = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}


class Nodes:
    """Serve on a head and workers; HAProxy on the head alone, since they share one machine."""

    def __init__(self, cluster: Cluster, folder: Path, applications: list[dict[str, Any]]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._cluster = cluster
        context = ray.init(cluster.address, namespace="serve", log_to_driver=False)
        config = shipped_config()
        config["http_options"]["port"] = self.port
        config.update(proxy_location="HeadOnly", applications=applications)
        file = folder / "serve_config.yaml"
        file.write_text(yaml.safe_dump(config))
        tool = str(Path(sys.executable).with_name("serve"))
        address = f"http://{context.dashboard_url}"
        subprocess.run([tool, "deploy", "--address", address, str(file)], check=True, timeout=120)

    def ready(self) -> bool:
        try:
            return httpx2.get(self.url + "/ready", timeout=10).status_code == 200
        except httpx2.TransportError:
            return False

    def replicas(self, application: str) -> dict[str, str]:
        """The node of each replica that runs, by the replica's actor."""
        client = serve.context._get_global_client()
        details = client.get_serve_details()["applications"][application]["deployments"]
        (deployment,) = details.values()
        running = [each for each in deployment["replicas"] if each["state"] == "RUNNING"]
        return {each["actor_id"]: each["node_id"] for each in running}

    def settled(self, application: str, num_replicas: int) -> bool:
        """Whether so many run, and nothing is starting or being drained."""
        (deployment,) = serve.status().applications[application].deployments.values()
        return {str(k): v for k, v in deployment.replica_states.items()} == {
            "RUNNING": num_replicas
        }

    def kill(self, node_id: str) -> None:
        """Ends a worker node without a word: its raylet by SIGKILL."""
        (node,) = [n for n in self._cluster.worker_nodes if n._node_id == node_id]
        self._cluster.remove_node(node, allow_graceful=False)

    def add(self) -> str:
        """One more worker; its id."""
        return str(_add(self._cluster, WORKER)._node_id)


@contextmanager
def nodes(num_workers: int, applications: list[dict[str, Any]]) -> Iterator[Nodes]:
    """The cluster, in a folder of Ray's own, so that no other on the machine is met."""
    mark = run.new_run()
    ports = {name: str(free_port()) for name in (*SIDE_PORTS, "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT")}
    environment = {**run.environment(mark, SLOW_MACHINE), **ports}
    kept = {name: os.environ.get(name) for name in (*environment, "RAY_TMPDIR")}
    with tempfile.TemporaryDirectory(prefix="rh", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ.update(environment, RAY_TMPDIR=folder)  # sockets need a short path
        cluster = Cluster()
        try:
            head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": free_port()}
            for node in (head, *[WORKER] * num_workers):
                _add(cluster, node)
            yield Nodes(cluster, Path(folder), applications)
        finally:
            _set_global_client(None)  # Serve goes with its nodes; by itself it would drain first
            ray.shutdown()
            cluster.shutdown()
            for name, value in kept.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
            run.end(mark, patience_s=0)


def _add(cluster: Cluster, node: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # sockets by which Ray finds free ports
        added = cluster.add_node(**node)
        gc.collect()
    return added
