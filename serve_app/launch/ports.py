"""Whether a port is free, and who holds it. Ends nobody."""

import errno
import socket

import psutil

MAX_COMMAND_CHARS = 80
RAY_PROCESSES = {"raylet", "gcs_server"}


def refusal(host: str, port: int) -> OSError | None:
    """What the system would say to a server that listens there; None if it would let it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: a port whose connections have only just ended counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def in_use(error: OSError) -> bool:
    """Whether a refusal says that another process listens there."""
    return error.errno == errno.EADDRINUSE


def holder(port: int) -> psutil.Process | None:
    """The process that listens on a port; None if it belongs to somebody else."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listens and listens.port == port and connection.pid:
                return psutil.Process(connection.pid)
    except psutil.Error:  # not allowed to look, or just gone
        pass
    return None


def described(process: psutil.Process) -> str:
    """A process as operators know it: its command and its pid."""
    try:
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        command = "?"
    return f"`{command.strip()[:MAX_COMMAND_CHARS]}` (pid {process.pid})"


def cluster_behind(process: psutil.Process) -> psutil.Process | None:
    """What started the Ray cluster that a process belongs to; None if no cluster lives above it."""
    try:
        line = [process, *process.parents()]
        for below, above in zip(line, [*line[1:], None], strict=True):
            if below.name() in RAY_PROCESSES:
                return below if above is None or above.pid == 1 else above
    except psutil.Error:
        pass
    return None
