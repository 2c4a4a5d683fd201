"""A way to run a scheduler step by step, without threads, for the tests."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from deployments.errors import RoundhouseError
from deployments.huggingface.adapters.rows import Adapters
from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.engine.generation import Choice, Delta, Sampling, Stopping
from deployments.huggingface.engine.grammar import Grammar
from deployments.huggingface.engine.queue import Queue
from deployments.huggingface.engine.scheduler import Scheduler
from deployments.huggingface.engine.sequence import Sequence
from deployments.huggingface.engine.vocabulary import Vocabulary

from .models import EOS, byte_tokenizer

VOCABULARY = Vocabulary(byte_tokenizer())
MAX_STEPS = 2000
GREEDY = Sampling(temperature=0)


class Collected:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.errors: list[RoundhouseError] = []
        self.add = self.deltas.append
        self.fail = self.errors.append


class Asked(Sequence):
    """A sequence whose tokens and end a test can see."""

    def __init__(
        self,
        prompt: tuple[int, ...],
        max_tokens: int,
        sampling: Sampling = GREEDY,
        grammar: Grammar | None = None,
        adapter: str | None = None,
    ) -> None:
        self.sink = Collected()
        self.prompt = prompt
        stopping = Stopping(max_tokens, token_ids=frozenset({EOS}))
        choice = Choice(0, prompt, sampling, stopping, adapter=adapter)
        super().__init__(choice, VOCABULARY, self.sink, grammar)

    @property
    def answer(self) -> list[int]:
        """The tokens so far."""
        return list(self.context[len(self.prompt) :])


@dataclass(frozen=True)
class Event:
    """What happens before a step: something is asked, and maybe cancelled some steps later."""

    at_step: int
    sequence: Asked
    cancelled_after: int | None = None


def run(
    model: Any, capacity: Capacity, events: Iterable[Event], adapters: Adapters | None = None
) -> None:
    """Runs a scheduler until all is done; everything must then be free again."""
    queue = Queue(capacity.max_queued_requests)
    scheduler = Scheduler(Decoder(model, adapters), queue, capacity)
    events = list(events)
    last = max(event.at_step for event in events)
    with torch.inference_mode():
        for step in range(MAX_STEPS):
            queue_events(queue, events, step)
            scheduler.step()
            assert capacity.fits(scheduler.running)
            if step > last and not scheduler.running and not len(queue):
                break
        scheduler.step()
    assert (scheduler.running, len(queue), scheduler.num_batch_tokens) == ([], 0, 0)


def queue_events(queue: Queue, events: list[Event], step: int) -> None:
    """Lets happen what is due."""
    for event in events:
        if event.at_step == step:
            queue.put([event.sequence])
        if event.cancelled_after is not None and event.at_step + event.cancelled_after == step:
            queue.cancel([event.sequence])


def generated(model: Any, prompt: tuple[int, ...], max_tokens: int) -> list[int]:
    """What transformers' generate says greedily."""
    options: dict[str, Any] = {"do_sample": False, "eos_token_id": EOS, "pad_token_id": EOS}
    out = model.generate(torch.tensor([prompt]), max_new_tokens=max_tokens, **options)
    return out[0, len(prompt) :].tolist()


def assert_as_alone(events: Iterable[Event], expected: Callable[[Asked], list[int]]) -> None:
    """Each has the first tokens of those that are expected of it alone, and has ended."""
    for event in events:
        sequence = event.sequence
        assert sequence.answer == expected(sequence)[: len(sequence.answer)]
        assert not sequence.sink.errors
        assert sequence.cancelled or sequence.sink.deltas[-1].finish_reason
