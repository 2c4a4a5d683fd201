"""A Hugging Face hub on this machine: as much of its protocol as a download takes."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

RANGE = re.compile(r"bytes=(\d+)-(\d+)")
REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves one repository; notes the files that are asked for as a whole."""

    daemon_threads = True

    def __init__(self, repo: str, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repo = repo
        self.folder = folder
        self.fetched: list[str] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of what a download asks."""

    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path, hub = urlsplit(self.path).path, self.server
        resolved = f"/{hub.repo}/resolve/"
        if path == f"/api/models/{hub.repo}/revision/main":
            self._json({"id": hub.repo, "sha": REVISION, "siblings": []})
        elif path == f"/api/models/{hub.repo}/tree/{REVISION}":
            self._json([_entry(file) for file in sorted(hub.folder.iterdir())])
        elif path.startswith(resolved):
            self._file(hub.folder / path.rpartition("/")[2])
        else:
            self._send(404, b"{}", {"x-error-code": "RepoNotFound"})

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"content-type": "application/json"})

    def _file(self, file: Path) -> None:
        if not file.is_file():
            self._send(404, b"{}", {"x-error-code": "EntryNotFound"})
            return
        content = file.read_bytes()
        headers = {"etag": f'"{_blob_id(content)}"', "x-repo-commit": REVISION}
        if part := RANGE.fullmatch(self.headers.get("range", "")):
            self._send(206, content[int(part[1]) : int(part[2]) + 1], headers)
            return
        if self.command == "GET":
            self.server.fetched.append(file.name)
        self._send(200, content, headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _entry(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    return {"type": "file", "path": file.name, "size": len(content), "oid": _blob_id(content)}


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def use(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the hub's library talk to this address, with nothing in its cache."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    files = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))


@contextmanager
def serving(repo: str, folder: Path) -> Iterator[Hub]:
    """The hub, for as long as the block runs."""
    hub = Hub(repo, folder)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
