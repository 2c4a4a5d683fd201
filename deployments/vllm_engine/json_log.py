"""vLLM's own lines as JSON, in the form that the replica's other lines have, from all of its
processes. It takes vLLM's public way of configuring logs, and leaves an operator's own alone.

Not JSON is what libraries in those processes print, and says so in no log of vLLM's.
"""

import json
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


class JSONFormatter(logging.Formatter):
    """A line as an object. `identity` says whose it is, and is a part of each."""

    def __init__(self, identity: Mapping[str, str]) -> None:
        super().__init__()
        self._identity = dict(identity)

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
            "process": record.process,
            "logger": record.name,
            "engine_process": getattr(record, "vllm_process_name", record.processName),
            **self._identity,
            "timestamp_ns": int(record.created * 1e9),
        }
        if record.exc_info and record.exc_info[0] is not None:
            # Not its text: that may hold a prompt.
            kind, _, frames = record.exc_info
            line["traceback"] = f"{''.join(traceback.format_tb(frames))}{kind.__name__}"
        return json.dumps(line)


@contextmanager
def in_json(engine_args: Any, identity: Mapping[str, str] | None) -> Iterator[None]:
    """The engine that is started in this block, with these arguments, logs as JSON; without an
    identity, or where an operator has a configuration of vLLM's logs, nothing is changed."""
    found = engine_args.create_logging_config()
    if identity is None or found.pylogging_config_file or not found.configure_logging:
        yield
        return
    with TemporaryDirectory(prefix="roundhouse-log-") as folder:
        file = Path(folder) / "logging.json"
        file.write_text(json.dumps(configuration(identity, found.log_level)))
        engine_args.logging_config = replace(found, pylogging_config_file=str(file))
        yield


def configuration(identity: Mapping[str, str], level: str) -> dict[str, Any]:
    """For `logging.config.dictConfig`, as vLLM takes it."""
    formatter = {"()": f"{__name__}.{JSONFormatter.__name__}", "identity": dict(identity)}
    handler = {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": formatter},
        "handlers": {"json": handler},
        "loggers": {"vllm": {"handlers": ["json"], "level": level, "propagate": False}},
    }
