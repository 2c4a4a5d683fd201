"""What one long prompt does to 8 streams that run: how long they wait for a token.

Every step is the same work in each run, so it counts by the fastest of several runs, timed by the
thread's own clock (torch has one thread here): what took longer was somebody else's doing.
"""

import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from deployments.errors import RoundhouseError
from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.engine.generation import Choice, Delta, Sampling, Stopping
from deployments.huggingface.engine.queue import Queue
from deployments.huggingface.engine.scheduler import Scheduler
from deployments.huggingface.engine.sequence import Sequence
from deployments.huggingface.engine.vocabulary import Vocabulary

NUM_RUNS = 5
NUM_STREAMS = 8
CHUNK_TOKENS = 128
LONG_PROMPT_TOKENS = 1536
NUM_CHUNKS = LONG_PROMPT_TOKENS // CHUNK_TOKENS
LEAD_STEPS, MORE_STEPS = 30, 5  # before it has come, and after it is one of the streams
MAX_TOKENS = LEAD_STEPS + 3 * NUM_CHUNKS + MORE_STEPS
GREEDY = Sampling(temperature=0)


class Times:
    """A sink that notes when each token came."""

    def __init__(self) -> None:
        self.at_s: list[float] = []

    def add(self, _: Delta) -> None:
        self.at_s.append(time.thread_time())

    def fail(self, error: RoundhouseError) -> None:
        raise error

    @property
    def gaps_s(self) -> list[float]:
        """Between each token and the next."""
        return [b - a for a, b in zip(self.at_s, self.at_s[1:], strict=False)]


class Stepped:
    """A scheduler that is stepped, and its queue."""

    def __init__(self, model: Any, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._queue = Queue(NUM_STREAMS + 1)
        capacity = Capacity(prefill_chunk_tokens=CHUNK_TOKENS)
        self._scheduler = Scheduler(Decoder(model), self._queue, capacity)

    def ask(self, num_prompt_tokens: int) -> Times:
        """Puts a stream into the queue."""
        times = Times()
        prompt = tuple(10 + n % 900 for n in range(num_prompt_tokens))
        choice = Choice(0, prompt, GREEDY, Stopping(MAX_TOKENS), streamed=True)
        self._queue.put([Sequence(choice, self._vocabulary, times)])
        return times

    def steps_s(self, until: Times, num_tokens: int) -> list[float]:
        """How long each step takes until a stream has so many tokens."""
        found = []
        while len(until.at_s) < num_tokens:
            began_s = time.thread_time()
            self._scheduler.step()
            found.append(time.thread_time() - began_s)
        return found

    def step(self, count: int) -> None:
        """So many steps."""
        for _ in range(count):
            self._scheduler.step()


def measure(checkpoint: Path) -> dict[str, float]:
    """Milliseconds: the streams' longest gap before and after a long prompt has come, and the
    longest of its chunks when it is read alone."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    vocabulary = Vocabulary(AutoTokenizer.from_pretrained(checkpoint))
    with torch.inference_mode():
        runs = [
            (chunks_s(Stepped(model, vocabulary)), gaps_s(Stepped(model, vocabulary)))
            for _ in range(NUM_RUNS)
        ]
    chunks, gaps = fastest([run[0] for run in runs]), fastest([run[1] for run in runs])
    before, after = gaps[: LEAD_STEPS - 1], gaps[LEAD_STEPS - 1 :]
    return {
        "gap_before_p50_ms": 1000 * median(before),
        "gap_before_ms": 1000 * max(before),
        "gap_after_ms": 1000 * max(after),
        "chunk_ms": 1000 * max(chunks),
    }


def chunks_s(alone: Stepped) -> list[float]:
    """The chunks of the long prompt when nothing else runs."""
    return alone.steps_s(alone.ask(LONG_PROMPT_TOKENS), 1)


def gaps_s(beside: Stepped) -> list[float]:
    """The gaps of the streams, which have their tokens together, from `LEAD_STEPS` tokens before
    the long prompt comes to `MORE_STEPS` after its second token."""
    stream, *_ = [beside.ask(16) for _ in range(NUM_STREAMS)]
    beside.step(LEAD_STEPS)
    beside.steps_s(beside.ask(LONG_PROMPT_TOKENS), 2)  # its keys and values have moved
    beside.step(MORE_STEPS)
    return stream.gaps_s


def fastest(runs: list[list[float]]) -> list[float]:
    """Of each step, over runs that did the same."""
    return [min(step) for step in zip(*runs, strict=True)]
