"""A replica's records on their way into Serve's log, without a replica."""

import io
import logging
import sys
import threading
from collections.abc import Iterator
from logging.handlers import MemoryHandler

import pytest
from ray._common.formatters import JSONFormatter

from deployments.current_request import request_id
from serve_app.replica_log import ACCESS, SERVE, ToServe
from tests.polling import PATIENCE_S

IDENTITY = {"application": "demo", "deployment": "echo", "replica": "r1", "node_id": "n1"}


class File(logging.Handler):
    """Serve's log file, as far as it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.written = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.written.set()


@pytest.fixture
def file() -> Iterator[File]:
    """Serve's logger as it is in throughput mode: a thousand lines are kept back."""
    file, logger = File(), logging.getLogger(SERVE)
    before = logger.handlers, logger.level
    logger.handlers = [MemoryHandler(1000, target=file)]
    logger.setLevel(logging.INFO)
    yield file
    logger.handlers, level = before
    logger.setLevel(level)


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", stream)
    return stream


def logger_of(name: str) -> logging.Logger:
    logger = logging.Logger(name, logging.INFO)
    logger.addHandler(ToServe(IDENTITY))
    return logger


def test_a_line_is_soon_in_the_file(file: File, stderr: io.StringIO) -> None:
    """A line is in Serve's file soon, however many Serve waits for, with who wrote it."""
    logger_of("deployments.any").info("a line")
    assert file.written.wait(PATIENCE_S)
    record = file.records[0]
    assert {name: getattr(record, name) for name in IDENTITY} == IDENTITY
    assert not hasattr(record, "request_id")
    assert stderr.getvalue() == "INFO a line\n"


def test_lines_outlive_a_library_s_configuration(file: File, stderr: io.StringIO) -> None:
    """vLLM configures Python's logging when it is imported, which closes every handler there is:
    lines are in the file all the same, those from before as well."""
    logger = logger_of("deployments.any")
    waiting = logging.getLogger(SERVE).handlers[0]
    waiting.close()
    logging.getLogger(SERVE).info("meanwhile")
    logger.info("a line")
    assert file.written.wait(PATIENCE_S)
    waiting.flush()
    assert [record.getMessage() for record in file.records] == ["meanwhile", "a line"]


def test_the_request_is_the_one_that_runs(file: File, stderr: io.StringIO) -> None:
    """A line has the id of the request that is being worked on, or the one that it names."""
    token = request_id.set("running")
    logger = logger_of("deployments.any")
    logger.warning("a")
    logger.warning("b", extra={"request_id": "named"})
    request_id.reset(token)
    logging.getLogger(SERVE).handlers[0].flush()
    assert [vars(r)["request_id"] for r in file.records] == ["running", "named"]
    assert all(vars(r)["skip_context_filter"] for r in file.records)


def test_lines_of_requests_are_in_the_file_only(file: File, stderr: io.StringIO) -> None:
    """A line for every request does not go the long way to the operator's terminal."""
    logger_of(ACCESS).info("POST /")
    assert file.written.wait(PATIENCE_S)
    assert stderr.getvalue() == ""


def test_json_everywhere(file: File, stderr: io.StringIO) -> None:
    """Where Serve writes JSON, stderr has the same."""
    file.setFormatter(JSONFormatter())
    logger_of("roundhouse").warning("a line")
    line = stderr.getvalue()
    assert '"message": "a line"' in line
    assert '"application": "demo"' in line
    assert '"levelname": "WARNING"' in line


def test_the_text_of_an_error_is_left_out(file: File, stderr: io.StringIO) -> None:
    """Of an exception its type and where it came from are logged: its text may hold a prompt."""
    file.setFormatter(JSONFormatter())
    canary = "canary"
    try:
        int(canary)
    except ValueError:
        logger_of("deployments.any").exception("A generation failed")
    logging.getLogger(SERVE).handlers[0].flush()
    for text in (stderr.getvalue(), file.format(file.records[0])):
        assert "canary'" not in text  # which int() quotes
        assert "ValueError" in text
        assert "test_replica_log.py" in text


def test_serve_says_from_which_level_on(file: File, stderr: io.StringIO) -> None:
    """`log_level` in the logging_config holds for these lines too."""
    logging.getLogger(SERVE).setLevel(logging.WARNING)
    logger = logger_of("deployments.any")
    logger.info("unseen")
    logger.warning("seen")
    logging.getLogger(SERVE).handlers[0].flush()
    assert [r.getMessage() for r in file.records] == ["seen"]
