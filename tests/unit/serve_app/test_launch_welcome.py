"""What is printed when the models are there works as printed."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.launch.progress import Row
from serve_app.launch.welcome import curl, example_model, python, tool, welcome
from tests.unit.serve_app.launch_children import plan_at


def row(name: str, state: str = "running", reason: str | None = None) -> Row:
    return Row(application=name, models=[name], backend="vllm", state=state, reason=reason)


def test_models_are_listed_with_their_state() -> None:
    """One line each; a failed one with its reason, while the others are offered."""
    text = welcome(plan_at(8000), [row("small"), row("broken", "failed", "no such checkpoint")])
    assert "Roundhouse serves at http://127.0.0.1:8000/v1\n" in text
    assert "  small   vllm     running\n" in text
    assert "  broken  vllm     failed: no such checkpoint\n" in text
    assert '"model": "small"' in text
    assert text.endswith("Ctrl-C stops everything.\n")


def test_the_demo_is_offered_first() -> None:
    """The demo if it runs, else the first that does, else none."""
    assert example_model([row("a"), row("demo")]) == "demo"
    assert example_model([row("demo", "failed"), row("b")]) == "b"
    assert example_model([row("demo", "warming")]) is None
    costly = row("gpt").model_copy(update={"backend": "api"})
    assert example_model([costly, row("b")]) == "b"
    assert "No model runs" in welcome(plan_at(8000), [row("demo", "failed", "why")])


def test_the_deploy_command_finds_its_cluster() -> None:
    """Where another cluster has Ray's usual address, the command names this one's."""
    usual, other = "http://127.0.0.1:8265", "http://127.0.0.1:8266"
    for address, option in ((None, ""), (usual, ""), (other, f"--address {other} ")):
        command = tool(f"deploy {option}{plan_at(8000).config}")
        assert command in welcome(plan_at(8000), [row("demo")], address)


def test_curl_is_one_command() -> None:
    """A shell reads it as curl with one URL, a header and a JSON body."""
    words = shlex.split(curl(plan_at(8000), "demo"))
    assert words[:2] == ["curl", "http://127.0.0.1:8000/v1/chat/completions"]
    body = json.loads(words[words.index("-d") + 1])
    assert body["model"] == "demo"
    assert "authorization" not in " ".join(words)


def test_curl_sends_the_first_key() -> None:
    """The shell puts in the first of the keys that the router was given."""
    command = curl(plan_at(8000, api_keys_env="KEYS"), "demo").replace("curl", "printf '%s\\n'", 1)
    done = subprocess.run(
        ["bash", "-c", command], env={"KEYS": "first,second"}, capture_output=True, check=True
    )
    assert b"\nauthorization: Bearer first\n" in done.stdout


@pytest.mark.parametrize(("keys_env", "key"), [(None, "none"), ("KEYS", "first")])
def test_python_asks_the_router(keys_env: str | None, key: str, tmp_path: Path) -> None:
    """The snippet, run as it is, calls the model at the router's URL with the key."""
    (tmp_path / "openai.py").write_text(RECORDER)
    done = subprocess.run(
        [sys.executable, "-c", python(plan_at(8000, api_keys_env=keys_env), "demo")],
        env={"PYTHONPATH": str(tmp_path), "KEYS": "first,second"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.split() == ["http://127.0.0.1:8000/v1", key, "demo", "12"]


def test_tools_say_what_ray_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's tools need RAY_AUTH_MODE from another shell; where it is set, it is left as it is."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    serve = os.path.relpath(Path(sys.executable).with_name("serve"))
    assert tool("status") == f"RAY_AUTH_MODE=token {serve} status"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert tool("status") == f"{serve} status"


# The client as far as the snippet uses it; the real one is tried in tests/integration.
RECORDER = """
from types import SimpleNamespace as Name
class OpenAI:
    def __init__(self, base_url, api_key):
        print(base_url, api_key)
        self.chat = Name(completions=Name(create=self.create))
    def create(self, model, messages):
        print(model)
        return Name(choices=[Name(message=Name(content="12"))])
"""
