"""What is ours around vLLM, without starting an engine."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deployments.config import VLLMConfig
from deployments.errors import (
    BackendOverloaded,
    BackendUnavailable,
    ContextTooLong,
    InvalidRequest,
    RoundhouseError,
    StartError,
    UnsupportedEndpoint,
)
from deployments.exchange import Exchange, Head
from deployments.vllm_engine.args import server_args
from deployments.vllm_engine.backend import VLLMBackend
from deployments.vllm_engine.errors import error_from_answer

pytestmark = pytest.mark.filterwarnings("ignore")  # of vLLM and torch, when they are imported


def config(**settings: object) -> VLLMConfig:
    return VLLMConfig.model_validate({"checkpoint": "/m", **settings})


async def answer(*pieces: bytes) -> AsyncIterator[Head | bytes]:
    for piece in pieces:
        yield piece


def vllm_error(message: str, param: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "param": param, "code": 400}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "param"),
    [
        (400, vllm_error("bad", "body.top_k"), InvalidRequest, "top_k"),
        (400, vllm_error("too long", "input_tokens"), ContextTooLong, "input_tokens"),
        (422, b'{"detail":"not ours"}', InvalidRequest, None),
        (404, b'{"detail":"Not Found"}', UnsupportedEndpoint, None),
        (405, b"", UnsupportedEndpoint, None),
        (501, vllm_error("no embeddings"), UnsupportedEndpoint, None),
        (429, vllm_error("busy"), BackendOverloaded, None),
        (503, vllm_error("busy"), BackendUnavailable, None),
        (500, vllm_error("Traceback: at 0xdeadbeef01"), RoundhouseError, None),
        (500, b"not json", RoundhouseError, None),
    ],
)
async def test_errors(
    status: int, body: bytes, kind: type[RoundhouseError], param: str | None
) -> None:
    """vLLM's error answers become ours, whatever their form; server errors show nothing."""
    error = await error_from_answer(Head(status), answer(body[:4], body[4:]), "/v1/x")
    assert type(error) is kind
    assert error.param == param
    assert "0xdeadbeef01" not in error.message


async def test_echo_is_bounded() -> None:
    """vLLM quotes the client's input in its errors; ours quote little of it."""
    error = await error_from_answer(Head(400), answer(vllm_error("x" * 9000)), "/v1/x")
    assert len(error.message) <= 200


@pytest.mark.parametrize("path", ["/no/such/folder", "./no/such", "~/no-such-folder"])
async def test_missing_checkpoint(path: str) -> None:
    """A path that is not there is said at once, without starting anything."""
    with pytest.raises(StartError, match="no checkpoint folder"):
        await VLLMBackend("m", config(checkpoint=path)).start()


async def test_folder_without_config(tmp_path: Path) -> None:
    """A folder that is no checkpoint is said at once."""
    with pytest.raises(StartError, match=r"config\.json"):
        await VLLMBackend("m", config(checkpoint=str(tmp_path))).start()


async def test_not_started() -> None:
    """Before its start a backend is not well, and refuses requests; stopping it is harmless."""
    backend = VLLMBackend("m", config())
    with pytest.raises(BackendUnavailable):
        await backend.check_health()
    with pytest.raises(BackendUnavailable):
        await anext(backend.exchange(Exchange("/v1/chat/completions", b"{}", "id", "m")))
    assert backend.num_running == 0
    await backend.stop()


def test_engine_options() -> None:
    """Options of vLLM's own are passed on, over ours; a wrong one is named, with the nearest."""
    args = server_args("/m", "name", config(engine_options={"max_num_seqs": 7, "dtype": "half"}))
    assert (args.max_num_seqs, args.dtype, args.served_model_name) == (7, "half", ["name"])
    with pytest.raises(StartError, match="max_num_seqs"):
        server_args("/m", "name", config(engine_options={"max_num_seq": 7}))


def test_traces_need_statistics() -> None:
    """vLLM makes its spans of its statistics, which are off otherwise since they cost."""
    assert server_args("/m", "n", config()).disable_log_stats
    traced = config(engine_options={"otlp_traces_endpoint": "http://localhost:4318/v1/traces"})
    assert not server_args("/m", "n", traced).disable_log_stats


def test_quantization() -> None:
    """nf4 is vLLM's bitsandbytes; int8, which vLLM has not, is refused by name."""
    assert server_args("/m", "n", config(quantization="nf4")).quantization == "bitsandbytes"
    with pytest.raises(StartError, match="int8"):
        server_args("/m", "n", config(quantization="int8"))
