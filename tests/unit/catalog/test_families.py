"""Every family of the catalogue, from a `model_type` to answers over HTTP.

The model is a tiny one of the family's architecture in place of the real checkpoint; the router,
the backend, the entry and its template are the real ones.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from deployments import backends
from deployments.catalog import entries
from deployments.exchange import Backend
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving

from .families import SPECIAL, save_random, save_reciter, tokenizer
from .test_templates import SYSTEM, TURNS, render

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),  # gpt_bigcode
]

# One model of each template, of the architecture that its template is for.
FAMILIES = {
    str(entry.settings.get("chat_template")): name
    for name, entry in reversed(entries().items())
    if entry.architecture
}.values()
MESSAGES = [{"role": "system", "content": SYSTEM}, *TURNS]
SAID = "Ok"
# What the reciter of each family goes on to say, of which nothing may be seen.
MARKS = {"falcon-40b-instruct": "\nUser", "pythia-12b": "\nQuestion:"}
FALCONS_STOP_TOKEN = "<|im_start|>"  # 3 here, which is no end token
MARKS |= {"starchat": "<|end|>", "mpt-30b-chat": "<|im_end|>"}


def recited(key: str) -> str:
    mark = MARKS.get(key, "</s>")
    if mark.endswith(":"):  # which begins it all again
        return SAID + mark
    return f"{SAID}{mark}XYZ{FALCONS_STOP_TOKEN}W"


def build(name: str, key: str, checkpoint: str) -> Backend:
    args = {"model_type": key, "checkpoint": checkpoint, "backend": "huggingface"}
    return backends.build(name, backends.configure({**args, "dtype": "float32", "num_gpus": 0}))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx2.AsyncClient]:
    """A router before two models of each family: NAME is random, NAME-reciter recites."""
    models: dict[str, Backend] = {}
    for key in FAMILIES:
        folder = tmp_path_factory.mktemp(key)
        checkpoint = save_random(str(entries()[key].architecture), folder / "random")
        models[key] = build(key, key, str(checkpoint))
        start = tokenizer("</s>").tokenize(render(key, *MESSAGES))[-1]
        start = start if start in SPECIAL else render(key, *MESSAGES)[-1]
        reciter = save_reciter(folder / "reciter", start, recited(key))
        models[f"{key}-reciter"] = build(f"{key}-reciter", key, str(reciter))
    async with AsyncExitStack() as stack:
        for model in models.values():  # one by one: transformers cannot load two at a time
            stack.push_async_callback(model.stop)
            await model.start()
        url = await stack.enter_async_context(serving(RouterApp(LocalCluster(models))))
        http = httpx2.AsyncClient(base_url=f"{url}/v1", timeout=60)
        yield await stack.enter_async_context(http)


async def ask(client: httpx2.AsyncClient, path: str, **body: Any) -> Mapping[str, Any]:
    response = await client.post(path, json={"temperature": 0, "max_tokens": 12, **body})
    assert response.status_code == 200, response.text
    answer: Mapping[str, Any] = response.json()
    return answer


async def chat(client: httpx2.AsyncClient, model: str, **body: Any) -> Mapping[str, Any]:
    return await ask(client, "/chat/completions", model=model, messages=MESSAGES, **body)


@pytest.mark.parametrize("key", FAMILIES)
async def test_a_chat_is_what_its_template_makes_of_it(
    client: httpx2.AsyncClient, key: str
) -> None:
    """A chat with a model of the family's architecture is answered exactly as a completion of the
    text that the family's template gives, token for token."""
    prompt = render(key, *MESSAGES)
    told = await chat(client, key)
    completed = await ask(client, "/completions", model=key, prompt=prompt)
    num_tokens = len(tokenizer("</s>")(prompt, add_special_tokens=False)["input_ids"])
    assert told["usage"] == completed["usage"]
    assert told["usage"]["prompt_tokens"] == num_tokens
    assert told["choices"][0]["message"]["content"] == completed["choices"][0]["text"]
    other = await ask(client, "/completions", model=key, prompt=prompt.replace("word", "line"))
    assert other["choices"][0]["text"] != completed["choices"][0]["text"]


@pytest.mark.parametrize("key", FAMILIES)
async def test_an_answer_ends_at_the_familys_mark(client: httpx2.AsyncClient, key: str) -> None:
    """What ends a turn in the family ends the answer, and is not shown, in part or whole; a request
    that ignores the end of text gets what comes after it."""
    told = await chat(client, f"{key}-reciter")
    assert told["choices"][0]["message"]["content"] == SAID
    assert told["choices"][0]["finish_reason"] == "stop"
    onwards = await chat(client, f"{key}-reciter", ignore_eos=True, max_tokens=20)
    assert onwards["choices"][0]["message"]["content"].startswith(SAID)
    assert onwards["usage"]["completion_tokens"] == 20


async def test_stop_strings_are_the_templates(client: httpx2.AsyncClient) -> None:
    """A completion has no template: its stop strings do not cut it, its stop tokens do."""
    model, prompt = "falcon-40b-instruct-reciter", "Assistant:"
    completed = await ask(client, "/completions", model=model, prompt=prompt, max_tokens=30)
    assert completed["choices"][0]["text"] == f"{SAID}\nUserXYZ"
    assert completed["choices"][0]["finish_reason"] == "stop"


async def test_the_clients_stops_count_too(client: httpx2.AsyncClient) -> None:
    """A request's own stop strings stop as well, whichever comes first."""
    told = await chat(client, "wizardlm-30b-reciter", stop=["k"])
    assert told["choices"][0]["message"]["content"] == "O"
