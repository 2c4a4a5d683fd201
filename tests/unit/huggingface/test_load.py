"""Many requests at once, through the backend and its thread."""

import asyncio
import gc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.cache_utils import Cache

from deployments.errors import BackendOverloaded, BackendUnavailable, ContextTooLong
from deployments.huggingface.backend import HuggingFaceBackend
from deployments.huggingface.engine.sequence import Sequence
from deployments.huggingface.protocol.answer import Answer
from deployments.pipe import Pipe
from tests.polling import until

from .asking import CHAT, COMPLETIONS, ask, exchange_of, started
from .gate import Gate


def idle(backend: HuggingFaceBackend) -> bool:
    engine = backend.engine
    return not (
        backend.num_running
        or engine.num_running
        or engine.num_waiting
        or engine.num_batch_tokens
        or engine.num_cache_bytes
    )


def left_over() -> list[object]:
    """What requests are made of, and futures that somebody could still wait for."""
    gc.collect()
    return [
        thing
        for thing in gc.get_objects()
        if issubclass(type(thing), (Sequence, Answer, Pipe, Cache))
        or (issubclass(type(thing), asyncio.Future) and not thing.done())
    ]


async def stream(backend: HuggingFaceBackend, num_pieces: int, **body: Any) -> None:
    """Leaves after some pieces, or at the end, if so many are sent as one that it is there."""
    items = backend.exchange(exchange_of(CHAT, stream=True, ignore_eos=True, **body))
    with suppress(StopAsyncIteration):
        for _ in range(num_pieces):
            await anext(items)
    await items.aclose()


async def test_many_cancels_leave_nothing_behind(random_backend: HuggingFaceBackend) -> None:
    """After clients have left at every stage, no key, value, sequence, task or future is left."""
    before = left_over()  # of other tests
    tasks = [asyncio.create_task(stream(random_backend, n % 5, n=1 + n % 3)) for n in range(40)]
    doomed = [asyncio.create_task(ask(random_backend, CHAT, ignore_eos=True)) for _ in range(20)]
    kept = ask(random_backend, COMPLETIONS, prompt="abc", temperature=0, max_tokens=30)
    alone = await kept
    await asyncio.wait(tasks[:20])
    for task in doomed:
        task.cancel()
    again = await ask(random_backend, COMPLETIONS, prompt="abc", temperature=0, max_tokens=30)
    await asyncio.wait([*tasks, *doomed])
    assert all(task.exception() is None for task in tasks)
    assert again.body["choices"] == alone.body["choices"]
    await until(lambda: idle(random_backend))
    del tasks, doomed, kept, task
    await until(lambda: all(any(thing is old for old in before) for thing in left_over()))


async def test_requests_run_side_by_side(random_backend: HuggingFaceBackend, gate: Gate) -> None:
    """A short request does not wait for a long one to end."""
    gate.hold()
    long = asyncio.create_task(ask(random_backend, CHAT, ignore_eos=True))
    await gate.reached()
    short = asyncio.create_task(ask(random_backend, CHAT, max_tokens=2))
    await until(lambda: random_backend.engine.num_waiting == 1)
    gate.hold(after=20)  # more than the short one takes, and less than the long one
    assert (await short).tail.completion_tokens <= 2
    assert random_backend.engine.num_running >= 1
    assert not long.done()
    gate.open()
    assert (await long).tail.completion_tokens > 40


async def test_seeds_hold_in_company(random_backend: HuggingFaceBackend) -> None:
    """The same seed gives the same text alone and among others."""
    asked = {"prompt": "x", "max_tokens": 20, "top_p": 0.9}
    alone = [await ask(random_backend, COMPLETIONS, seed=seed, **asked) for seed in range(4)]
    others = [ask(random_backend, CHAT, max_tokens=n) for n in range(1, 9)]
    together = [ask(random_backend, COMPLETIONS, seed=seed, **asked) for seed in range(4)]
    got = await asyncio.gather(*together, *others)
    assert [g.body["choices"] for g in got[:4]] == [a.body["choices"] for a in alone]


async def test_the_queue_is_bounded(random_checkpoint: Path, gate: Gate) -> None:
    """With the budget taken and the queue full, a request is told when to come back."""
    settings = {"max_batch_tokens": 256, "max_queued_requests": 1}
    async with started(random_checkpoint, **settings) as backend:
        gate.hold()
        running = asyncio.create_task(ask(backend, CHAT, ignore_eos=True))
        await gate.reached()
        waiting = asyncio.create_task(ask(backend, CHAT, max_tokens=1))
        await until(lambda: backend.engine.num_waiting == 1)
        with pytest.raises(BackendOverloaded) as full:
            await ask(backend, CHAT, max_tokens=1)
        assert full.value.retry_after_s
        running.cancel()
        gate.open()
        assert (await waiting).tail.completion_tokens == 1


async def test_what_can_never_fit_is_refused_at_once(random_checkpoint: Path) -> None:
    """A request beyond the whole budget is a 400 before it waits."""
    async with started(random_checkpoint, max_batch_tokens=50) as backend:
        with pytest.raises(ContextTooLong):
            await ask(backend, CHAT, max_tokens=100)
        assert (await ask(backend, CHAT, max_tokens=5)).tail.completion_tokens


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_death_of_the_engine_is_seen_by_all(
    random_backend: HuggingFaceBackend, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the device is lost, health checks fail and everyone who waits is told; none hangs."""
    engine = random_backend.engine
    gate.hold()
    running = [asyncio.create_task(stream(random_backend, 10**4)) for _ in range(5)]
    await until(lambda: engine.num_running + engine.num_waiting == len(running))

    def lost(*_: object, **__: object) -> None:
        raise torch.AcceleratorError("the device is lost")

    monkeypatch.setattr(torch.nn.functional, "pad", lost)
    gate.open()
    for task in running:
        with pytest.raises(BackendUnavailable):
            await task
    with pytest.raises(BackendUnavailable):
        await random_backend.check_health()
    with pytest.raises(BackendUnavailable):
        await ask(random_backend, CHAT)
