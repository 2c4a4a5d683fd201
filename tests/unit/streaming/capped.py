"""A process that serves a checkpoint through the router in less memory than half of its weights.

Run as a module with a JSON of settings; prints a JSON with answers and peaks.
"""

import asyncio
import json
import sys
import threading
from typing import Any

import httpx2
import psutil
import torch

from benchmarks.memory_cap import capped, forget_peak, status
from deployments import catalog
from deployments.config import HuggingFaceConfig
from deployments.huggingface.backend import HuggingFaceBackend
from deployments.huggingface.engine import engine  # noqa: F401 - part of the base, not of the model
from deployments.huggingface.loading import build  # noqa: F401 - part of the base, not of the model
from deployments.placement import machine
from serve_app.config import RouterSettings
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving

NUM_STREAMS = 8
SPARE_BYTES = 8 * 2**20


def settings(checkpoint: str, cap_bytes: int | None = None) -> HuggingFaceConfig:
    """The budget is a little less than the cap, as an operator would have it."""
    memory: dict[str, Any] = {"batch": NUM_STREAMS, "context": 16, "disk": checkpoint}
    if cap_bytes is not None:
        memory["cpu"] = machine.own_ram_bytes() + cap_bytes - SPARE_BYTES
    return HuggingFaceConfig(checkpoint=checkpoint, dtype="float32", memory=memory)


async def stream(client: httpx2.AsyncClient, url: str, prompt: str) -> str:
    body = {"model": "m", "prompt": prompt, "max_tokens": 8, "temperature": 0, "stream": True}
    text = ""
    async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
    return text


async def serve(config: HuggingFaceConfig) -> dict[str, Any]:
    backend = HuggingFaceBackend("m", config)
    await backend.start()
    model = backend.engine._scheduler._decoder._model  # type: ignore[union-attr]
    router = RouterApp(LocalCluster({"m": backend}), [])
    router.settings = RouterSettings()
    async with serving(router) as url, httpx2.AsyncClient(timeout=120) as client:
        prompts = ["abcdefgh"[:n] for n in range(1, NUM_STREAMS + 1)]
        texts = await asyncio.gather(*(stream(client, url, prompt) for prompt in prompts))
    await backend.stop()
    return {"texts": texts, "streams": hasattr(model, "streamer")}


def main(asked: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    threading.stack_size(2**20)
    cap_bytes = asked["cap_bytes"]
    # What libraries take on their first use is no part of the model.
    asyncio.run(serve(HuggingFaceConfig(checkpoint=catalog.checkpoint_path("package:demo/model"))))
    config = settings(asked["checkpoint"], cap_bytes)
    before = psutil.Process().memory_info().rss
    with capped(cap_bytes) as kind:
        forget_peak()
        answered = asyncio.run(serve(config))
    return answered | {"cap": kind, "peak_share": status("VmHWM") / (before + cap_bytes)}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
