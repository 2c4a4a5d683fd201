"""Who takes part, path by path: a name, and how it is started and asked."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.huggingface import servers as hf_servers
from benchmarks.peers.environments import LITELLM, RAY_SERVE_LLM, VLLM_ROUTER, Environment
from benchmarks.stack import ROOT, Stack, free_port
from benchmarks.stacks import (
    BARE,
    MODEL,
    NOTHING,
    OURS,
    bare_vllm,
    config_with,
    engine_options,
    roundhouse,
    serve_run,
    side_ports,
)

SERVE_LLM, SERVE_LLM_DIRECT = "Ray Serve LLM", "Ray Serve LLM, direct"
HANDLE = "Roundhouse, no router"
NONE, LITELLM_PROXY, ROUTER_OF_VLLM = "no gateway", "LiteLLM proxy", "vllm-router"
UPSTREAM = "upstream"

# Serve's ports for replicas, apart from ours: two instances would look for free ones at a time.
APART = {
    "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": "31100",
    "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": "31900",
    "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": "41100",
    "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": "41900",
}
# What Ray's documentation recommends for speed, and calls experimental: one model, no ingress.
DIRECT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
}

Start = Callable[[Path], Stack]


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to be answered. `stack` names the stack that answers, where another starts it."""

    name: str
    start: Start | None = None
    environment: Environment | None = None
    stack: str = ""
    by_handle: bool = False
    asks: Mapping[str, Any] = field(default_factory=dict)  # what its loads have of its own


def engine_contenders() -> list[Contender]:
    """Before the demo's engine, each with an engine of its own and the same options."""
    return [
        Contender(BARE, bare_vllm),
        Contender(SERVE_LLM, lambda folder: serve_llm(SERVE_LLM, folder), RAY_SERVE_LLM),
        Contender(
            SERVE_LLM_DIRECT,
            lambda folder: serve_llm(SERVE_LLM_DIRECT, folder, DIRECT),
            RAY_SERVE_LLM,
        ),
        Contender(OURS, roundhouse),
        Contender(HANDLE, stack=OURS, by_handle=True),
    ]


def api_contenders(upstream: Stack) -> list[Contender]:
    """Before one scripted upstream, which they share."""
    return [
        Contender(NONE, stack=UPSTREAM),
        Contender(LITELLM_PROXY, lambda folder: litellm(folder, upstream), LITELLM),
        Contender(ROUTER_OF_VLLM, lambda folder: vllm_router(folder, upstream), VLLM_ROUTER),
        Contender(OURS, lambda folder: roundhouse_api(folder, upstream)),
    ]


def huggingface_contenders(checkpoint: Path) -> list[Contender]:
    """The demo's weights in float32, without a token that ends an answer, one thread of torch."""
    theirs = {"model": str(checkpoint), "fields": NOTHING, "ends_with_done": False}
    plain, continuous = hf_servers.PLAIN, hf_servers.CONTINUOUS
    return [
        Contender(plain, lambda _: hf_servers.transformers_serve(plain, checkpoint), asks=theirs),
        Contender(
            continuous,
            lambda _: hf_servers.transformers_serve(continuous, checkpoint, hf_servers.CB_FLAGS),
            asks=theirs,
        ),
        Contender(
            OURS,
            lambda _: replace(hf_servers.roundhouse(checkpoint), name=OURS),
            asks={"model": "demo-hf", "fields": {"ignore_eos": True}},
        ),
    ]


def serve_llm(name: str, folder: Path, environment: Mapping[str, str] = NOTHING) -> Stack:
    """Ray Serve LLM: as its documentation starts it, unless the environment says otherwise."""
    port, ready_port, options = free_port(), free_port(), engine_options()
    settings = {
        "port": port,
        "ready_port": ready_port,
        "kind": "gpu" if Path("/dev/nvidia0").exists() else "cpu",
        "model_source": options.pop("model"),
        "model_id": options.pop("served_model_name"),
        "engine_kwargs": options,
    }
    python = RAY_SERVE_LLM.program("python")
    command = [python, "-m", "benchmarks.peers.ray_serve_llm", json.dumps(settings)]
    log = folder / f"{name.replace(' ', '_')}.log"
    ours_too = {"PYTHONPATH": str(ROOT), **side_ports(), **APART, **environment}
    return Stack(name, port, "/", command, log, ours_too, ready_port=ready_port)


def upstream_stack(folder: Path) -> Stack:
    """The scripted upstream that all gateways stand before."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.upstream", str(port)]
    return Stack(UPSTREAM, port, "/v1/models", command, folder / "upstream.log")


def litellm(folder: Path, upstream: Stack) -> Stack:
    """LiteLLM's proxy with its default of one worker, without keys, database or callbacks."""
    port = free_port()
    params = {"model": "openai/upstream", "api_base": f"{upstream.url}/v1", "api_key": "none"}
    file = folder / "litellm.yaml"
    file.write_text(
        yaml.safe_dump({"model_list": [{"model_name": MODEL, "litellm_params": params}]})
    )
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would fetch a price list
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # only loopback is served
        "LITELLM_LOG": "ERROR",
    }
    where = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    command = [LITELLM.program("litellm"), "--config", str(file), *where]
    log = folder / "litellm.log"
    return Stack(LITELLM_PROXY, port, "/health/liveliness", command, log, environment)


def vllm_router(folder: Path, upstream: Stack) -> Stack:
    """vLLM's router in Rust, before one worker, its log at errors."""
    port = free_port()
    flags = [
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--worker-urls", upstream.url),
        *("--policy", "round_robin", "--log-level", "error"),
        *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
    ]
    command = [VLLM_ROUTER.program("vllm-router"), *flags]
    return Stack(ROUTER_OF_VLLM, port, "/health", command, folder / "vllm_router.log")


def roundhouse_api(folder: Path, upstream: Stack) -> Stack:
    """`serve run` of the shipped configuration, cut down to the router and one API model."""
    port = free_port()
    config = config_with(["api"], port)
    model = {
        "upstream_model": "upstream",
        "base_url_env": "OPENAI_BASE_URL",
        "api_key_env": "OPENAI_API_KEY",
    }
    for app in config["applications"]:
        if app["name"] == "api":
            app["args"] = {**app["args"], "models": {MODEL: model}}
    environment = {"OPENAI_BASE_URL": f"{upstream.url}/v1", "OPENAI_API_KEY": "none"}
    return serve_run(config, port, folder, environment=environment)
