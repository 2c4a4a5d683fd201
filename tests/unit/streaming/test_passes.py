"""What a step costs over weights that stream: one pass, whoever reads and whoever answers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from deployments.errors import BackendUnavailable
from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.engine.queue import Queue
from deployments.huggingface.engine.scheduler import Scheduler
from deployments.huggingface.streaming.streamer import Streamer
from tests.unit.huggingface.scheduling import Asked, Event, generated, run

from .checkpoints import resident, save_deep, streaming

AHEAD = 0.3  # of a pass: two of eight layers, with their pages' rests
CAPACITY = Capacity(prefill_chunk_tokens=16, shares_passes=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_deep("llama", tmp_path, torch.float32)
    return tmp_path


def num_passes(streamer: Streamer, before: int) -> float:
    """How often all weights that stream have been read since then."""
    layouts = streamer.ring._layouts  # type: ignore[union-attr]
    return (streamer.reader.num_read_bytes - before) / sum(of.read_bytes for of in layouts)


def test_a_step_is_one_pass(folder: Path) -> None:
    """While a long prompt is read, each step gives who runs a token and reads a chunk, and takes
    all weights once; so does the step after, of all together."""
    model, streamer = streaming(folder, torch.float32, num_slots=2, num_resident=0)
    expected = resident(folder, torch.float32)
    running, long = Asked((1,), 50), Asked(tuple(range(90)), 3)
    queue = Queue(8)
    queue.put([running])
    scheduler = Scheduler(Decoder(model), queue, CAPACITY)
    with torch.inference_mode():
        scheduler.step()
        queue.put([long])
        before, tokens = streamer.reader.num_read_bytes, len(running.answer)
        for _ in range(6):
            scheduler.step()
        # Of the next pass the ring may hold its slots already.
        assert 5 < num_passes(streamer, before) < 6 + AHEAD
        assert (len(running.answer), len(long.answer)) == (tokens + 6, 1)
        for _ in range(2):
            scheduler.step()
        assert 7 < num_passes(streamer, before) < 8 + AHEAD
    assert long.answer == generated(expected, long.prompt, 3)
    assert running.answer == generated(expected, running.prompt, 50)[: len(running.answer)]


@pytest.mark.parametrize("failing", ["prompt", "answers"])
def test_a_pass_that_fails_beside_another(failing: str, folder: Path) -> None:
    """Of two passes that share the weights one may fail in its middle: the other goes on, and who
    was in the one that failed is served again or told."""
    model, _ = streaming(folder, torch.float32, num_slots=2, num_resident=1)
    expected = resident(folder, torch.float32)
    fine, poisoned = Asked((1, 2, 3), 12), Asked((9,) * 5, 4)
    decoded, failures = 0, 0

    def fail(module: Any, args: Any) -> None:
        nonlocal decoded, failures
        num_columns = args[0].shape[1]
        decoded += num_columns == 1
        wanted = num_columns == 5 if failing == "prompt" else (num_columns, decoded) == (1, 3)
        if wanted:  # the third answered token comes beside the prompt of five
            failures += 1
            raise RuntimeError("no memory")

    model.model.layers[4].mlp.register_forward_pre_hook(fail)
    run(model, CAPACITY, [Event(0, fine), Event(3, poisoned)])
    assert failures
    assert fine.answer == generated(expected, fine.prompt, 12)
    if failing == "prompt":
        assert [type(error) for error in poisoned.sink.errors] == [BackendUnavailable]
    else:
        assert poisoned.answer == generated(expected, poisoned.prompt, 4)
