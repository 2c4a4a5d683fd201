"""A commercial model of the catalogue, from its name to its replacement's answer."""

import httpx2
import pytest

from deployments import backends
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving
from tests.unit.catalog.facts import API


@pytest.mark.parametrize("key", API)
async def test_its_replacement_answers(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that still asks for a model that was shut down is answered by its replacement."""
    replacement = API[key]["replacement"].partition(" ")[0]
    provider = backends.build(replacement, backends.configure({"backend": "echo"}))
    commercial = backends.build(key, backends.configure({"model_type": key}))
    await provider.start()
    await commercial.start()
    async with (
        serving(RouterApp(LocalCluster({replacement: provider}))) as upstream,
        serving(RouterApp(LocalCluster({key: commercial}))) as url,
        httpx2.AsyncClient(base_url=url) as client,
    ):
        variable = "GEMINI" if API[key]["provider"] == "google" else "OPENAI"
        monkeypatch.setenv(f"{variable}_BASE_URL", f"{upstream}/v1")
        monkeypatch.setenv(f"{variable}_API_KEY", "a-key")
        body = {"model": key, "messages": [{"role": "user", "content": "hello"}]}
        answer = await client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == replacement
        assert answer.json()["choices"][0]["message"]["content"] == "hello"
    await commercial.stop()
    await provider.stop()
