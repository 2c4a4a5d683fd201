"""What a serve_config says that its launcher must know. Judges nothing: `check` has been before."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from serve_app.check import inventory
from serve_app.check.inventory import HAPROXY, Role

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
# Taken besides the router's: the variable that sets each, and Serve's default. The last is that of
# the proxy behind HAProxy, which two instances would share without a word, and answer each other's.
SIDE_PORTS = {
    "RAY_SERVE_HAPROXY_METRICS_PORT": 9101,
    "RAY_SERVE_HAPROXY_STATS_PORT": 8404,
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": 8500,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the router will listen, and which applications will stand behind it.

    `side_ports` are those that Serve's HAProxy takes besides, each with the variable that sets it;
    `api_keys_env` names the variable with the clients' keys, if the router asks for one, and
    `api_keys` is its value, "" where it is not set.
    """

    config: Path
    host: str
    port: int
    applications: tuple[str, ...]
    side_ports: Mapping[str, int]
    api_keys_env: str | None = None
    api_keys: str = field(default="", repr=False)

    @property
    def reachable_host(self) -> str:
        """The host that a client on this machine can connect to."""
        return EVERYWHERE.get(self.host, self.host)

    @property
    def url(self) -> str:
        """Where clients on this machine find the router."""
        host = f"[{self.reachable_host}]" if ":" in self.reachable_host else self.reachable_host
        return f"http://{host}:{self.port}"


def read(config: Path) -> Plan:
    """The plan of a file that `check` has found fine."""
    value = yaml.safe_load(config.read_text(encoding="utf-8"))
    asked = inventory.read(value) or inventory.Inventory(())
    http = value.get("http_options") or {}
    router = next((application.raw for application in asked.of(Role.ROUTER)), {})
    api_keys_env = (router.get("args") or {}).get("api_keys_env")
    return Plan(
        config=config,
        host=http.get("host", "0.0.0.0"),
        port=http.get("port", 8000),
        applications=tuple(str(a.name) for a in asked.applications if a.role is not Role.ROUTER),
        side_ports=_side_ports(value),
        api_keys_env=api_keys_env,
        api_keys=_environment(router).get(api_keys_env or "", ""),
    )


def _side_ports(value: Mapping[str, Any]) -> dict[str, int]:
    env = _environment(value.get("controller_options") or {})
    if env.get(HAPROXY) != "1":
        return {}
    return {name: int(env.get(name, default)) for name, default in SIDE_PORTS.items()}


def _environment(part: Mapping[str, Any]) -> dict[str, str]:
    """The environment that a part of the file runs in: the operator's, and what the file adds."""
    return {**os.environ, **((part.get("runtime_env") or {}).get("env_vars") or {})}
