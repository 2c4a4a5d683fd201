"""What one long prompt does to 8 streams that run: how long they wait for a token.

Timed by the thread's own clock (torch has one thread here): the longest of hundreds of gaps would
otherwise be that of whatever else the machine did.
"""

import time
from pathlib import Path
from statistics import median

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from deployments.errors import RoundhouseError
from deployments.huggingface.capacity import Capacity
from deployments.huggingface.decoder import Decoder
from deployments.huggingface.generation import Choice, Delta, Sampling, Stopping
from deployments.huggingface.queue import Queue
from deployments.huggingface.scheduler import Scheduler
from deployments.huggingface.sequence import Sequence
from deployments.huggingface.vocabulary import Vocabulary

NUM_STREAMS = 8
CHUNK_TOKENS = 128
LONG_PROMPT_TOKENS = 1536
LEAD_STEPS, NUM_STEPS = 30, 60


class Times:
    """A sink that notes when each token came."""

    def __init__(self) -> None:
        self.at_s: list[float] = []

    def add(self, _: Delta) -> None:
        self.at_s.append(time.thread_time())

    def fail(self, error: RoundhouseError) -> None:
        raise error


class Stepped:
    """A scheduler that is stepped, and its queue."""

    def __init__(self, checkpoint: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self._vocabulary = Vocabulary(AutoTokenizer.from_pretrained(checkpoint))
        self.queue = Queue(NUM_STREAMS + 1)
        capacity = Capacity(prefill_chunk_tokens=CHUNK_TOKENS)
        self.scheduler = Scheduler(Decoder(model), self.queue, capacity)

    def ask(self, num_prompt_tokens: int, max_tokens: int) -> Times:
        """Puts a stream into the queue."""
        prompt = tuple(range(10, 10 + num_prompt_tokens % 900)) * (1 + num_prompt_tokens // 900)
        prompt = prompt[:num_prompt_tokens]
        times = Times()
        stopping = Stopping(max_tokens)
        choice = Choice(0, prompt, Sampling(temperature=0), stopping, streamed=True)
        self.queue.put([Sequence(choice, self._vocabulary, times)])
        return times

    def steps_s(self, count: int) -> list[float]:
        """How long each of so many steps takes."""
        found = []
        for _ in range(count):
            began_s = time.thread_time()
            self.scheduler.step()
            found.append(time.thread_time() - began_s)
        return found


def measure(checkpoint: Path) -> dict[str, float]:
    """Milliseconds: the streams' longest gap before and after a long prompt has come, and the
    longest of its chunks when it is read alone."""
    with torch.inference_mode():
        num_chunks = -(-LONG_PROMPT_TOKENS // CHUNK_TOKENS)
        alone = Stepped(checkpoint)
        alone.ask(LONG_PROMPT_TOKENS, 1)
        chunks_s = alone.steps_s(num_chunks)
        beside = Stepped(checkpoint)
        streams = [beside.ask(16, LEAD_STEPS + NUM_STEPS) for _ in range(NUM_STREAMS)]
        beside.steps_s(LEAD_STEPS)
        count = len(streams[0].at_s)
        beside.ask(LONG_PROMPT_TOKENS, 1)
        beside.steps_s(num_chunks + 2)  # the chunks, the joining, and a step with it
    gaps = [[b - a for a, b in zip(s.at_s, s.at_s[1:], strict=False)] for s in streams]
    before = [gap for found in gaps for gap in found[1 : count - 1]]
    after = [gap for found in gaps for gap in found[count - 1 :]]
    return {
        "gap_before_ms": 1000 * max(before),
        "gap_before_p50_ms": 1000 * median(before),
        "gap_after_ms": 1000 * max(after),
        "chunk_ms": 1000 * max(chunks_s),
    }
