"""What the logs of the shipped configuration say of a request, and what they never say."""

import re
from typing import Any

import httpx2

from tests.integration.conftest import KEY, Roundhouse
from tests.plain_http import CHAT, chat

CANARIES = (KEY, "canary prompt", "canary-model", "sk-canary-of-a-client")
LINE = re.compile(
    r"INFO \S+ \S+ router_Router \w+ (?P<id>\S+) -- POST (?P<path>\S+) 200 [\d.]+ms "
    r"model=(?P<model>\S+) served_by=\S+ backend=(?P<backend>\S+) .*completion_tokens=(?P<cost>\d+)"
)
MODELS = {"demo": "vllm", "demo-hf": "huggingface", "gpt-4": "api", "echo": "echo"}


def ask(roundhouse: Roundhouse, request_id: str, body: Any, path: str = CHAT) -> httpx2.Response:
    headers = {"x-request-id": request_id, "authorization": "Bearer sk-canary-of-a-client"}
    return httpx2.post(roundhouse.instance.url + path, json=body, headers=headers, timeout=120)


def router_lines(roundhouse: Roundhouse) -> dict[str, re.Match[str]]:
    """The lines of good answers, by request id."""
    files = (roundhouse.instance.logs / "serve").glob("replica_router_*.log")
    return {match["id"]: match for file in files for match in LINE.finditer(file.read_text())}


def test_a_line_for_people(roundhouse: Roundhouse) -> None:
    """As shipped, the router's log is text: a line per request with its id, who answered, and the
    tokens it cost."""
    for model in MODELS:
        assert ask(roundhouse, f"line-{model}", chat("Hello", model, max_tokens=3)).is_success
    wanted = {f"line-{model}" for model in MODELS}
    roundhouse.instance.wait(lambda: wanted <= set(router_lines(roundhouse)))
    lines = router_lines(roundhouse)
    for model, backend in MODELS.items():
        line = lines[f"line-{model}"]
        assert (line["path"], line["model"], line["backend"]) == (CHAT, model, backend)
        assert int(line["cost"]) > 0


def test_no_secret_is_written(roundhouse: Roundhouse) -> None:
    """No backend writes a prompt or a key into any log file of the run, whatever goes wrong."""
    for model in MODELS:
        canary = "canary prompt " * 3
        ask(roundhouse, "secret", chat(canary, model, max_tokens=3))
        ask(roundhouse, "secret", chat(canary, model, max_tokens=3, stream=True))
        ask(roundhouse, "secret", chat(canary * 2000, model))
        ask(roundhouse, "secret", {"model": model, "messages": canary})
        ask(roundhouse, "secret", chat(canary, model, temperature="canary prompt"))
        ask(roundhouse, "secret", {"model": model, "input": canary}, "/v1/embeddings")
        ask(
            roundhouse,
            "secret",
            {"model": model, "prompt": {"canary prompt": 1}},
            "/v1/completions",
        )
    ask(roundhouse, "secret", chat("canary prompt", "canary-model"))
    assert ask(roundhouse, "the-last", chat("x", "echo")).is_success
    roundhouse.instance.wait(lambda: "the-last" in router_lines(roundhouse))
    texts = roundhouse.instance.written()
    found = [(name, word) for name, text in texts.items() for word in CANARIES if word in text]
    assert found == []
