"""The backends under contract, and how each is asked to say a given text.

A fifth backend is one more entry of SUBJECTS.
"""

import contextlib
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deployments import backends
from deployments.catalog import checkpoint_path
from deployments.exchange import Backend
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving

MODEL = "subject"
ADAPTER = "other"
Tokens = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Subject:
    """A started backend. `say` is the prompt whose answer is a text; the token counts are made by
    other means than the backend's own. `work` is the backend that does the work and counts it."""

    name: str
    backend: Backend
    work: Backend
    say: Callable[[str], str]
    prompt_tokens: Tokens
    answer_tokens: Tokens


def words(text: str) -> int:
    return len(text.split())


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint_path("package:demo/model"))


@cache
def adapter() -> str:
    """An adapter of the demo model, strong enough to spoil its answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(checkpoint_path("package:demo/model"))
    lora = LoraConfig(
        r=5, lora_alpha=64, target_modules=["q_proj", "o_proj"], init_lora_weights=False
    )
    folder = Path(tempfile.mkdtemp(prefix="adapter-"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PEFT would look up its base on the hub
        get_peft_model(model, lora).save_pretrained(folder)
    return str(folder)


def rendered_tokens(prompt: str) -> int:
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer().apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return len(tokenizer().encode(text, add_special_tokens=False))


def generated_tokens(answer: str) -> int:
    return len(tokenizer().encode(answer, add_special_tokens=False)) + 1  # and the end token


def repeat(text: str) -> str:
    return f"Repeat: {text}"


@contextlib.asynccontextmanager
async def started(backend: Backend) -> AsyncIterator[Backend]:
    await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[Subject]:
    async with started(backends.build(MODEL, backends.configure({"backend": "echo"}))) as backend:
        yield Subject("echo", backend, backend, str, words, words)


@contextlib.asynccontextmanager
async def api() -> AsyncIterator[Subject]:
    """The upstream is a real OpenAI-compatible server: our router before an EchoBackend."""
    async with (
        echo() as upstream,
        serving(RouterApp(LocalCluster({"upstream": upstream.backend}))) as url,
    ):
        model = {"upstream_model": MODEL, "base_url": f"{url}/v1", "api_key_env": None}
        config = backends.configure({"backend": "api", "models": {MODEL: model}})
        async with started(backends.build(MODEL, config)) as backend:
            yield Subject("api", backend, upstream.backend, str, words, words)


@contextlib.asynccontextmanager
async def demo(kind: str) -> AsyncIterator[Subject]:
    args = {"model_type": "demo", "backend": kind, "adapters": {ADAPTER: adapter()}}
    args["autoscaling"] = {}  # vLLM tells its load only where somebody asks
    config = backends.configure(args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the libraries warn of when imported is not ours
        backend = backends.build(MODEL, config)
        await backend.start()
    try:
        yield Subject(kind, backend, backend, repeat, rendered_tokens, generated_tokens)
    finally:
        await backend.stop()


SUBJECTS: Mapping[str, Callable[[], contextlib.AbstractAsyncContextManager[Subject]]] = {
    "echo": echo,
    "api": api,
    "huggingface": lambda: demo("huggingface"),
    "vllm": lambda: demo("vllm"),
}
GENERATING = ("huggingface", "vllm")
