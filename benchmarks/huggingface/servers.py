"""What 8 clients ask over HTTP: `transformers serve`, and ours through its router.

A request that fails, or whose answer has another length, counts as a failure and is not repeated.
"""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from benchmarks import cpu_use
from benchmarks.closed_loop import closed_loop
from benchmarks.huggingface.work import Asked, requests
from benchmarks.stack import Stack, free_port
from benchmarks.stacks import config_with, serve_run

NUM_CLIENTS = 8
NUM_WARM_UP = 8
REQUEST_LIMIT_S = 60.0
PATH = "/v1/completions"
OURS, PLAIN, CONTINUOUS = "ours, through the router", "transformers serve", "transformers serve, CB"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
CB_FLAGS = (
    "--continuous-batching",
    *("--cb-block-size", "32"),
    *("--cb-num-blocks", "640"),
    *("--cb-max-batch-tokens", "512"),
)


@dataclass(frozen=True, slots=True)
class Served:
    """One pass over the work; `num_tokens` are those of the answers that did not fail."""

    num_tokens: int
    wall_s: float
    cpu_s: float
    failures: dict[str, int]


def transformers_serve(name: str, checkpoint: Path, flags: Sequence[str] = ()) -> Stack:
    """transformers' own server, on loopback, with one model that stays loaded."""
    port = free_port()
    program = str(Path(sys.executable).with_name("transformers"))
    where = ["--host", "127.0.0.1", "--port", str(port)]
    model = [str(checkpoint), "--device", "cpu", "--dtype", "float32", *flags]
    log = checkpoint.with_name(f"{name.replace(' ', '_')}.log")
    return Stack(name, port, "/health", [program, "serve", *model, *where], log, ONE_THREAD)


def roundhouse(checkpoint: Path) -> Stack:
    """`serve run` of the shipped configuration, cut down to the router and this model."""
    port = free_port()
    config = config_with(["demo-hf"], port)
    for app in config["applications"]:
        if app["name"] == "demo-hf":
            app["args"] = {
                "model_type": "demo-hf",
                "backend": "huggingface",
                "checkpoint": str(checkpoint),
                "dtype": "float32",
            }
    return replace(serve_run(config, port, checkpoint.parent), name=OURS)


def servers(checkpoint: Path) -> list[Stack]:
    """All that are compared."""
    return [
        roundhouse(checkpoint),
        transformers_serve(PLAIN, checkpoint),
        transformers_serve(CONTINUOUS, checkpoint, CB_FLAGS),
    ]


async def measured(stack: Stack, checkpoint: Path) -> Served:
    """Does the work once, after a warm-up that is not counted."""
    client = _Client(stack, checkpoint)
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=REQUEST_LIMIT_S)
    ) as session:
        await closed_loop(
            lambda n: client.ask(session, Asked(f"number {n}", 2)), NUM_WARM_UP, NUM_CLIENTS
        )
        client.failures.clear()
        work = requests()
        before_s = sum(cpu_use.used_by(stack).values())
        began_s = time.perf_counter()
        _, counts = await closed_loop(
            lambda n: client.ask(session, work[n]), len(work), NUM_CLIENTS
        )
        wall_s = time.perf_counter() - began_s
        cpu_s = sum(cpu_use.used_by(stack).values()) - before_s
    if missing := len(work) - len(counts):
        client.failures["not asked in time"] += missing
    return Served(sum(counts), wall_s, cpu_s, dict(client.failures))


class _Client:
    def __init__(self, stack: Stack, checkpoint: Path) -> None:
        self.failures: Counter[str] = Counter()
        self._url = stack.url + PATH
        self._model = "demo-hf" if stack.name == OURS else str(checkpoint)

    async def ask(self, session: aiohttp.ClientSession, asked: Asked) -> int:
        """The number of tokens in the answer; 0 for one that failed."""
        fields = {"model": self._model, "prompt": asked.prompt, "max_tokens": asked.num_tokens}
        body = {**fields, "temperature": 0}
        if self._model == "demo-hf":
            body["ignore_eos"] = True  # the tokenizer too names an end; the others do not ask it
        try:
            async with session.post(self._url, json=body) as response:
                answer = await response.json()
                if response.status != 200:
                    self.failures[f"status {response.status}"] += 1
                    return 0
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.failures[type(error).__name__] += 1
            return 0
        num_tokens = int(answer["usage"]["completion_tokens"])
        if num_tokens == asked.num_tokens:
            return num_tokens
        self.failures[f"{num_tokens} tokens, not {asked.num_tokens}"] += 1
        return 0
