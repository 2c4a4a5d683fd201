"""Where a replica's log goes: into Serve's own log of the replica, in Serve's own form.

`logging_config` in serve_config.yaml says which, text or JSON, where, and from which level on; a
line of ours has what Serve's have, so that one parser reads both. What is not about a single
request goes to the process's stderr as well, at once, which Ray shows and keeps.
"""

import logging
import sys
import threading
import traceback
from logging.handlers import MemoryHandler
from typing import Any

import ray
from ray import serve

from deployments.current_request import request_id
from deployments.exchange import Backend

LOGGERS = ("deployments", "serve_app", "roundhouse")
ACCESS = "roundhouse.access"
SERVE = "ray.serve"
TEXT = logging.Formatter("%(levelname)s %(message)s")
FLUSH_S = 0.5


def log_with_serve() -> None:
    """Lets what backends and router log be seen, from INFO on."""
    handler = ToServe(identity())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def log_engine_with_serve(backend: Backend) -> None:
    """Has a backend whose engine logs in processes of its own write JSON where Serve does: such
    lines go where Ray keeps what a worker prints."""
    if hasattr(backend, "log_identity") and _json_formatter(logging.getLogger(SERVE)) is not None:
        backend.log_identity = identity()


def identity() -> dict[str, str]:
    """Who logs, in Serve's words."""
    replica = serve.get_replica_context()
    return {
        "application": replica.app_name,
        "deployment": f"{replica.app_name}_{replica.deployment}",
        "replica": replica.replica_id.unique_id,
        "node_id": ray.get_runtime_context().get_node_id(),
        "component_name": "replica",
    }


class ToServe(logging.Handler):
    """Hands records on to Serve's logger.

    In throughput mode Serve writes a thousand lines at a time, or the next day: here a line is in
    its file within `FLUSH_S`. It also takes `sys.stderr` over then, so that is passed by.
    """

    def __init__(self, identity: dict[str, Any]) -> None:
        super().__init__()
        self._identity = identity
        self._serve = logging.getLogger(SERVE)
        waiting = [h for h in self._serve.handlers if isinstance(h, MemoryHandler)]
        self._files = {handler: handler.target for handler in waiting}
        self._stderr = logging.StreamHandler(sys.__stderr__)
        self._written = threading.Event()
        threading.Thread(target=self._flush, daemon=True, name="replica-log").start()

    def emit(self, record: logging.LogRecord) -> None:
        # Serve would add what it knows of the request that it took last in this task, which may
        # be another: a task lives on after the request that it was made in.
        vars(record).update(self._identity, logger=record.name, skip_context_filter=True)
        if "request_id" not in vars(record) and (current := request_id.get()):
            record.request_id = current
        _leave_out_texts(record)
        self._reopen()
        if self._serve.isEnabledFor(record.levelno):
            self._serve.handle(record)
            self._written.set()
        self._tell(record)

    def _tell(self, record: logging.LogRecord) -> None:
        """On stderr, unless Serve itself has."""
        if record.name == ACCESS:
            return
        if not any(type(handler) is logging.StreamHandler for handler in self._serve.handlers):
            self._stderr.setFormatter(_json_formatter(self._serve) or TEXT)
            self._stderr.handle(record)

    def _reopen(self) -> None:
        """What a library has closed that configures Python's logging, as vLLM does when it is
        imported: else no line is written any more, and all are kept in memory."""
        for handler, file in self._files.items():
            if handler.target is None:
                handler.setTarget(file)

    def _flush(self) -> None:
        pause = threading.Event()
        while self._written.wait():
            pause.wait(FLUSH_S)
            self._written.clear()
            for handler in list(self._serve.handlers):
                handler.flush()


def _leave_out_texts(record: logging.LogRecord) -> None:
    """Of an exception its type and its frames are told: its text may hold a key or a prompt."""
    if record.exc_info and record.exc_info[0] is not None:
        kind, _, frames = record.exc_info
        record.exc_text = f"{''.join(traceback.format_tb(frames))}{kind.__name__}"
        record.traceback = record.exc_text
        record.exc_info = None


def _json_formatter(logger: logging.Logger) -> logging.Formatter | None:
    """What Serve writes JSON with, where it does."""
    files = (h.target for h in logger.handlers if isinstance(h, MemoryHandler))
    formatters = (f.formatter for f in files if f is not None)
    return next((f for f in formatters if type(f).__name__ == "JSONFormatter"), None)
