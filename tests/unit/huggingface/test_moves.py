"""How much a step takes of fresh memory, which is what moving keys and values costs."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from deployments.huggingface.engine import cache as caches
from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.engine.generation import Sampling
from deployments.huggingface.engine.queue import Queue
from deployments.huggingface.engine.scheduler import Scheduler

from .allocations import Allocations
from .architectures import random_model
from .models import EOS
from .scheduling import Asked

NUM_STREAMS, CHUNK, LONG = 8, 16, 100
CAPACITY = Capacity(prefill_chunk_tokens=CHUNK)
DEEP = {"num_hidden_layers": 8, "num_key_value_heads": 2, "intermediate_size": 16}
STEP_LIMIT = 200
ENDLESS = Sampling(temperature=0, logit_bias={EOS: -100.0})


@pytest.fixture(scope="module")
def model() -> Any:
    """One whose keys and values are soon more than its weights."""
    return random_model("llama", **DEEP)


@pytest.fixture(scope="module")
def weight_bytes(model: Any) -> int:
    return sum(weight.nbytes for weight in model.parameters())


class Stepped:
    """A scheduler that is stepped, and what each step takes."""

    def __init__(self, model: Any, *asked: Asked) -> None:
        self.queue = Queue(9)
        self._scheduler = Scheduler(Decoder(model), self.queue, CAPACITY)
        self.fresh: list[int] = []  # bytes of a step's memory for the batch's keys and values
        self.allocated: list[int] = []  # bytes of all its memory, kept or not
        self.kept: list[int] = []  # bytes of keys and values after it
        self._known: list[weakref.ref[torch.UntypedStorage]] = []
        for sequence in asked:
            self.queue.put([sequence])

    @property
    def num_kept(self) -> int:
        """Bytes of the batch's keys and values."""
        return caches.num_bytes(self._scheduler._batch.cache)

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @torch.inference_mode()
    def step(self) -> None:
        with Allocations() as seen:
            self._scheduler.step()
        layers = self._scheduler._batch.cache.layers if self.num_kept else []
        states = [states for layer in layers for states in (layer.keys, layer.values)]
        storages = [state.untyped_storage() for state in states]
        # By what lives still, and not by addresses: what was freed may have been where the new is.
        known = {id(storage) for reference in self._known if (storage := reference()) is not None}
        self.fresh.append(sum(s.nbytes() for s in storages if id(s) not in known))
        self.allocated.append(seen.num_bytes)
        self.kept.append(self.num_kept)
        self._known = [weakref.ref(storage) for storage in storages]

    def until(self, end: Callable[[], bool]) -> None:
        for _ in range(STEP_LIMIT):
            if end():
                return
            self.step()
        raise AssertionError("it never came to that")

    def forget(self) -> None:
        self.fresh, self.allocated, self.kept = [], [], []


def test_a_long_prompt_moves_in_pieces(model: Any, weight_bytes: int) -> None:
    """From the arrival of a long prompt beside 8 streams to its place among them, no step takes
    more memory for keys and values than the weights, which a chunk reads, or an eighth of all,
    which a token reads; and none takes more in all than a step of all of them and a chunk.
    Together they take far more."""
    alone = Asked(tuple(range(LONG)), 9, ENDLESS)
    reading = Stepped(model, alone)
    reading.until(lambda: bool(alone.answer))

    streams = [Asked((n + 1,), 80, ENDLESS) for n in range(NUM_STREAMS)]
    stepped = Stepped(model, *streams)
    stepped.until(lambda: stepped.num_running == NUM_STREAMS and len(streams[-1].answer) > 2)
    stepped.forget()
    long = Asked(tuple(range(LONG)), 9, ENDLESS)
    stepped.queue.put([long])
    stepped.until(lambda: len(long.answer) == 2)
    fresh, allocated = stepped.fresh, stepped.allocated
    stepped.step()
    settled = stepped.allocated[-1]
    assert stepped.num_running == NUM_STREAMS + 1
    assert max(fresh) <= max(weight_bytes, stepped.num_kept // 7)  # an eighth, and rounding
    assert max(allocated) <= settled + max(reading.allocated)
    assert sum(fresh) >= stepped.num_kept > 3 * max(weight_bytes, *reading.allocated)


def running(model: Any, prompt: tuple[int, ...], num_tokens: int) -> tuple[Stepped, list[Asked]]:
    """Streams that have so many tokens; what it took is forgotten."""
    streams = [Asked((n, *prompt), 90, ENDLESS) for n in range(NUM_STREAMS)]
    stepped = Stepped(model, *streams)
    stepped.until(lambda: len(streams[-1].answer) >= num_tokens)
    stepped.forget()
    return stepped, streams


def test_columns_that_run_out_move_in_pieces(model: Any, weight_bytes: int) -> None:
    """Nor does a step take more when running streams need columns."""
    stepped, streams = running(model, tuple(range(30)), 2)
    stepped.until(lambda: len(streams[-1].answer) == 45)
    assert stepped.num_kept > 3 * weight_bytes
    assert 0 < max(stepped.fresh) <= max(weight_bytes, max(stepped.kept) // 7)


def test_who_leaves_moves_nobody_to_new_memory(model: Any) -> None:
    """When streams leave, the others stay in the memory that they are in."""
    stepped, streams = running(model, tuple(range(20)), 2)
    stepped.until(lambda: len(stepped.fresh) > 1 and 0 < stepped.fresh[-2] > stepped.fresh[-1] == 0)
    stepped.forget()
    stepped.queue.cancel([streams[0], streams[3]])
    stepped.step()
    assert stepped.num_running == NUM_STREAMS - 2
    assert stepped.fresh == [0]
