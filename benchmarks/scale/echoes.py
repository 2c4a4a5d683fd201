"""A real `serve run` of the router and of echoes: models that cost next to nothing."""

import json
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml
from ray import serve
from ray.serve.api import RunTarget

from benchmarks.polling import until
from benchmarks.stack import Stack, answers, free_port
from benchmarks.stacks import shipped_config
from serve_app.app import model
from serve_app.launch.plan import SIDE_PORTS

NAME = "Roundhouse"
ROUTER, CONTROLLER, ECHO = (
    "ray::ServeReplica:router:Router",
    "ray::ServeController",
    "ray::ServeReplica:",
)
DEPLOY_LIMIT_S = 300
COLD = {"backend": "echo", "num_cpus": 0.01, "autoscaling": {"min_replicas": 0}}
RUNNING = {"backend": "echo", "num_cpus": 0.01}


def stack(folder: Path, num_routers: int = 1, **models: dict[str, Any]) -> Stack:
    """`serve run` of serve_config.yaml as it is shipped, with so many routers, and these echoes in
    the place of its models; their args by name."""
    port, config = free_port(), shipped_config()
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    router, demo = config["applications"][:2]
    router["deployments"] = [{"name": "Router", "num_replicas": num_routers, "user_config": {}}]
    echoes = [{**demo, "name": name, "args": args} for name, args in models.items()]
    config["applications"] = [router, *echoes]
    file = folder / "serve_config.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    ports = (*SIDE_PORTS, "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT")
    return Stack(
        name=NAME,
        port=port,
        ready_path="/ready",
        command=[str(Path(sys.executable).with_name("serve")), "run", str(file)],
        log=folder / "roundhouse.log",
        environment={"RAY_ADDRESS": "local", **{name: str(free_port()) for name in ports}},
    )


def processes(stack: Stack, title: str) -> list[psutil.Process]:
    """Those of the stack whose title begins so."""
    return [p for p in stack.processes() if " ".join(p.cmdline()).startswith(title)]


def router(stack: Stack) -> psutil.Process:
    """The only one, or the first. Raises: TimeoutError where there is none."""
    return until(lambda: processes(stack, ROUTER), limit_s=10, pause_s=0.5)[0]


@contextmanager
def connected(stack: Stack) -> Iterator[None]:
    """This process as a driver in the stack's cluster; it must not outlive the block."""
    environment = shipped_config()["applications"][0]["runtime_env"]
    ray.init(_gcs_address(stack), namespace="serve", logging_level="error", runtime_env=environment)
    try:
        yield
    finally:
        ray.shutdown()


def add(names: Sequence[str], args: dict[str, Any]) -> None:
    """Deploys an application for each name, as `serve deploy` would, but without a task to build
    each: 200 of those would be 200 processes."""
    targets = [RunTarget(model(args), name=name, route_prefix=None) for name in names]
    serve.run_many(
        targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
    )


def wait_for(stack: Stack, names: Sequence[str]) -> None:
    """Until the router knows all of them."""
    last = f"/v1/models/{names[-1]}"
    until(lambda: answers(stack.port, last), DEPLOY_LIMIT_S, 0.5)
    until(lambda: answers(stack.port, "/ready"), DEPLOY_LIMIT_S, 0.5)


def _gcs_address(stack: Stack) -> str:
    for process in stack.processes():
        for argument in process.cmdline():
            if argument.startswith("--gcs-address="):
                return argument.partition("=")[2]
    raise RuntimeError("no process says where the GCS is")


def ongoing(stack: Stack, name: str) -> int:
    """What an application has in hand, as the router says."""
    with urllib.request.urlopen(f"{stack.url}/-/models", timeout=10) as answer:
        rows = json.load(answer)["applications"]
    return int(next(row["ongoing"] for row in rows if row["application"] == name))
