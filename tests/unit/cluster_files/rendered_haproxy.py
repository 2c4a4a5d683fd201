"""Run by test_haproxy.py with the environment of a serve_config, read by Serve at import: writes
what Serve would have HAProxy do, before one router and Serve's fallback proxy."""

import sys
from pathlib import Path

from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions


def render(folder: Path, port: int, router: int, fallback: int) -> None:
    """Ports are of 127.0.0.1."""
    http = HTTPOptions(host="127.0.0.1", port=port)
    config = HAProxyConfig(
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "server-state"),
        metrics_socket_path=str(folder / "metrics.sock"),
        http_options=http,
        has_received_routes=True,
        has_received_servers=True,
    )
    backend = BackendConfig(
        name="router",
        path_prefix="/",
        app_name="router",
        servers=[ServerConfig("router", "127.0.0.1", router)],
        fallback_server=ServerConfig("fallback", "127.0.0.1", fallback),
    )
    api = HAProxyApi(config, {"router": backend}, str(folder / "haproxy.cfg"))
    api._generate_config_file_internal()


if __name__ == "__main__":
    render(Path(sys.argv[1]), *map(int, sys.argv[2:]))
