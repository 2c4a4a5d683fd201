"""vLLM's lines as JSON, without an engine; tests/change/test_engines.py sees a real one's."""

import io
import json
import logging
import logging.config
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._common.formatters import JSONFormatter as ServesFormatter

from deployments.vllm_engine import json_log

pytestmark = pytest.mark.filterwarnings("ignore")  # of vLLM, when it is imported
IDENTITY = {"application": "demo", "deployment": "demo_vllm", "replica": "r1", "node_id": "n1"}


class Arguments:
    """Of vLLM's `AsyncEngineArgs` what is about logs; the whole looks a model up."""

    def __init__(self) -> None:
        self.logging_config: Any = None

    def create_logging_config(self) -> Any:
        from vllm.config.logging import LoggingConfig

        return self.logging_config or LoggingConfig()


def record_of(message: str, error: Exception | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("vllm.core", logging.WARNING, "core.py", 7, message, ("x",), info)


@pytest.fixture
def vllm_logger() -> Iterator[logging.Logger]:
    """vLLM's logger, as it was in the end."""
    logger = logging.getLogger("vllm")
    before = logger.handlers, logger.level, logger.propagate
    yield logger
    logger.handlers, level, logger.propagate = before
    logger.setLevel(level)


def test_a_line_has_what_serves_lines_have() -> None:
    """One parser reads both: a line has all the fields of Serve's own JSON and who wrote it."""
    record = record_of("an engine's %s")
    line = json.loads(json_log.JSONFormatter(IDENTITY).format(record))
    serves = json.loads(ServesFormatter().format(record_of("an engine's %s")))
    assert {name: line[name] for name in serves} == serves | {"asctime": line["asctime"]}
    assert {name: line[name] for name in IDENTITY} == IDENTITY
    assert (line["message"], line["logger"], line["levelname"]) == (
        "an engine's x",
        "vllm.core",
        "WARNING",
    )


def test_an_exceptions_text_is_left_out() -> None:
    """Its type and its frames are told; its text may hold a prompt."""
    secret = "canary prompt"
    try:
        raise ValueError(secret)
    except ValueError as exc:
        text = json_log.JSONFormatter(IDENTITY).format(record_of("it failed: %s", exc))
    assert secret not in text
    traceback = json.loads(text)["traceback"]
    assert traceback.endswith("ValueError")
    assert __file__ in traceback


def test_what_vllm_is_told_is_a_configuration(vllm_logger: logging.Logger) -> None:
    """Python's logging takes it as it stands: vLLM's loggers write objects from the level on."""
    logging.config.dictConfig(json.loads(json.dumps(json_log.configuration(IDENTITY, "WARNING"))))
    (handler,) = vllm_logger.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream := io.StringIO())
    logging.getLogger("vllm.engine").info("not this")
    logging.getLogger("vllm.engine").warning("this\nin two lines")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["message"] == "this\nin two lines"


def test_the_engine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arguments of the engine name a file while it starts, with the level that vLLM has; not
    without an identity, nor where an operator has a file of his own."""
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    arguments = Arguments()
    with json_log.in_json(arguments, IDENTITY):
        assert arguments.logging_config is not None
        file = Path(arguments.logging_config.pylogging_config_file)
        assert json.loads(file.read_text()) == json_log.configuration(IDENTITY, "ERROR")
    assert not file.exists()
    arguments = Arguments()
    with json_log.in_json(arguments, None):
        assert arguments.logging_config is None
    monkeypatch.setenv("VLLM_LOGGING_CONFIG_PATH", "/etc/vllm-logging.json")
    with json_log.in_json(arguments, IDENTITY):
        assert arguments.logging_config is None
