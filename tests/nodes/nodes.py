"""A cluster of several real Ray nodes on this machine, deployed to as an operator would."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import ray
import yaml
from ray import serve
from ray.cluster_utils import Cluster

from benchmarks.stack import free_port
from serve_app.directory import RUNNING_REPLICAS
from serve_app.launch import run
from serve_app.launch.plan import SIDE_PORTS
from tests.integration.instance import shipped_config
from tests.ray_nodes import add_node, ray_nodes

HEAD = {"num_cpus": 0, "include_dashboard": True}
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

    def serves_all(self) -> bool:
        """Whether each application has a replica that answers, as Serve sees it."""
        deployments = [
            d for a in serve.status().applications.values() for d in a.deployments.values()
        ]
        return all(
            any(str(state) in RUNNING_REPLICAS for state in deployment.replica_states)
            for deployment in deployments
        )

    def migrates(self, application: str) -> bool:
        """Whether one of its replicas is on a node that goes."""
        (deployment,) = serve.status().applications[application].deployments.values()
        return "PENDING_MIGRATION" in map(str, deployment.replica_states)

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
        return add_node(self._cluster, WORKER)


@contextmanager
def nodes(num_workers: int, applications: list[dict[str, Any]]) -> Iterator[Nodes]:
    """The cluster, with Serve and the applications on it; what it leaves behind is ended."""
    mark = run.new_run()
    ports = {name: str(free_port()) for name in (*SIDE_PORTS, "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT")}
    environment = {**run.environment(mark, SLOW_MACHINE), **ports}
    try:
        with ray_nodes(environment, HEAD, *[WORKER] * num_workers) as (cluster, folder):
            yield Nodes(cluster, folder, applications)
    finally:
        run.end(mark, patience_s=0)
