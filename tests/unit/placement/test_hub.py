"""Checkpoints that are planned before they are here."""

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.errors import StartError
from deployments.placement.source import from_folder, from_hub, model_of
from tests.unit.huggingface.fake_hub import serving, use

from .tensors import llama

REPO = "team/tiny"


def test_headers_are_all_that_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan's model is that of the folder, and its weights stay where they are."""
    folder = tmp_path / "published"
    folder.mkdir()
    expected = llama(folder).weights
    with serving(REPO, folder) as hub:
        use(hub.url, tmp_path / "cache", monkeypatch)
        config, tensors = from_hub(REPO)
        assert hub.fetched == ["config.json"]
    weights = model_of(REPO, config, tensors).weights
    assert weights.num_parameters == expected.num_parameters
    assert [layer.stored_bytes for layer in weights.layers] == [
        layer.stored_bytes for layer in from_folder(folder).weights.layers
    ]


class Dropping(socketserver.ThreadingTCPServer):
    """Accepts whoever comes, and hangs up."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.num_calls = 0

    def finish_request(self, *_: object) -> None:
        self.num_calls += 1


@pytest.fixture
def dropping() -> Iterator[Dropping]:
    with Dropping() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_hub_that_does_not_answer_is_asked_once(
    dropping: Dropping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network a plan is refused at once, and not after the hub client's retries."""
    use(f"http://127.0.0.1:{dropping.server_address[1]}", tmp_path, monkeypatch)
    with pytest.raises(
        StartError, match=r"could its headers be had .* Check the name, the network"
    ):
        from_hub(REPO)
    assert dropping.num_calls == 1
