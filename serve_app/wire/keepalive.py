"""A node that is gone says nothing: the kernel finds out, at both ends of a wire."""

import asyncio
import socket

IDLE_S = 10  # without a word before it asks
INTERVAL_S = 5
NUM_PROBES = 3
UNACKNOWLEDGED_MS = 25_000  # for what was sent

OPTIONS = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", IDLE_S),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", INTERVAL_S),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", NUM_PROBES),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS),
)


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Breaks the connection off when the other end has not been there for 25 seconds: what is open
    on it ends with an error then, and does not wait for its own time limit."""
    connection = transport.get_extra_info("socket")
    for level, name, value in OPTIONS:
        if option := getattr(socket, name, None):  # not every system has all of them
            connection.setsockopt(level, option, value)
