"""A process that serves a checkpoint through the router in less memory than half of its weights.

Run as a module with a JSON of settings; prints a JSON with answers and peaks. The cap is a memory
control group where one can be made, else RLIMIT_DATA.
"""

import asyncio
import contextlib
import json
import os
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import torch

from deployments import catalog
from deployments.config import HuggingFaceConfig
from deployments.huggingface import build, engine  # noqa: F401 - part of the base, not of the model
from deployments.huggingface.backend import HuggingFaceBackend
from deployments.placement import machine
from serve_app.config import RouterSettings
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving

NUM_STREAMS = 8
SPARE_BYTES = 8 * 2**20


@contextlib.contextmanager
def capped(num_bytes: int) -> Iterator[str]:
    """Lets this process take no more than `num_bytes` beyond what it has."""
    groups = [folder for folder in machine._own_groups() if (folder / "tasks").exists()]
    folder = (groups or [Path("/no-groups")])[-1] / f"roundhouse-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "cgroup.procs").write_text(str(os.getpid()))
        # What was taken before is not charged to the new group.
        (folder / "memory.limit_in_bytes").write_text(str(num_bytes))
    except OSError:
        with contextlib.suppress(OSError):
            folder.rmdir()
        limit = status("VmData") + num_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        yield "rlimit"
        return
    try:
        yield "cgroup"
    finally:
        (folder.parent / "cgroup.procs").write_text(str(os.getpid()))
        folder.rmdir()


def status(field: str) -> int:
    """Bytes that the kernel counts for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def settings(asked: dict[str, Any], cap_bytes: int | None) -> HuggingFaceConfig:
    """The budget is a little less than the cap, as an operator would have it."""
    memory = {"batch": NUM_STREAMS, "context": 16, "disk": asked["checkpoint"]}
    if cap_bytes is not None:
        memory["cpu"] = machine.own_ram_bytes() + cap_bytes - SPARE_BYTES
    return HuggingFaceConfig(checkpoint=asked["checkpoint"], dtype="float32", memory=memory)


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
    config, before = settings(asked, cap_bytes), psutil.Process().memory_info().rss
    if cap_bytes is None:
        return asyncio.run(serve(config)) | {"cap": None}
    with capped(cap_bytes) as kind:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        answered = asyncio.run(serve(config))
    return answered | {"cap": kind, "peak_share": status("VmHWM") / (before + cap_bytes)}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
