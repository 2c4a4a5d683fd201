"""What generates inside one process: our engine, and what transformers has. All of it on one
thread of torch, in float32, greedily; each contender has a process of its own."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.generation import ContinuousBatchingConfig

from deployments.errors import RoundhouseError
from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.engine.engine import Engine
from deployments.huggingface.engine.generation import Choice, Delta, Sampling, Stopping
from deployments.huggingface.engine.sequence import Sequence as Generated
from deployments.huggingface.engine.vocabulary import Vocabulary

Work = Sequence[tuple[tuple[int, ...], int]]  # token ids of a prompt, and how many to add

OURS, CONTINUOUS = "ours", "continuous batching"
STATIC_32, STATIC_8 = "static generate, all 32", "static generate, 4 x 8"
GREEDY = Sampling(temperature=0)
PAD = 0
LIMIT_S = 300.0


class Contender(Protocol):
    """Made with a model and its tokenizer."""

    def run(self, work: Work) -> int:
        """Does all of the work, given at once; returns how many useful tokens came of it."""

    def stop(self) -> None: ...


class Collected:
    """A sink for many answers: counts their tokens, and says when the last has ended."""

    def __init__(self, num_answers: int) -> None:
        self.num_tokens = 0
        self.ended = threading.Semaphore(0)
        self.num_answers = num_answers

    def add(self, delta: Delta) -> None:
        self.num_tokens += delta.num_tokens
        if delta.finish_reason:
            self.ended.release()

    def fail(self, _: RoundhouseError) -> None:
        """Its tokens are missing."""
        self.ended.release()

    def wait(self) -> None:
        for _ in range(self.num_answers):
            if not self.ended.acquire(timeout=LIMIT_S):
                raise TimeoutError


class Ours:
    """The Hugging Face backend's engine, text included, streamed as to clients."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._vocabulary = Vocabulary(tokenizer)
        self._engine = Engine(model, Capacity())
        self._engine.start()

    def run(self, work: Work) -> int:
        sink = Collected(len(work))
        for prompt, num_tokens in work:
            choice = Choice(0, prompt, GREEDY, Stopping(num_tokens), streamed=True)
            self._engine.submit([Generated(choice, self._vocabulary, sink)])
        sink.wait()
        return sink.num_tokens

    def stop(self) -> None:
        self._engine.stop()


class Static:
    """`generate` on batches in the order of arrival, each as long as its longest answer."""

    def __init__(self, model: Any, num_rows: int) -> None:
        self._model = model
        self._num_rows = num_rows

    def run(self, work: Work) -> int:
        for at in range(0, len(work), self._num_rows):
            self._generate(work[at : at + self._num_rows])
        return sum(num_tokens for _, num_tokens in work)

    def _generate(self, work: Work) -> None:
        width = max(len(prompt) for prompt, _ in work)
        ids = torch.tensor([[PAD] * (width - len(p)) + list(p) for p, _ in work])
        starts = torch.tensor([[width - len(prompt)] for prompt, _ in work])
        mask = (torch.arange(width) >= starts).long()
        longest = max(num_tokens for _, num_tokens in work)
        out = self._model.generate(
            ids.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            max_new_tokens=longest,
            do_sample=False,
            pad_token_id=PAD,
        )
        if tuple(out.shape) != (len(work), width + longest):
            raise RuntimeError(f"generate gave {tuple(out.shape)}")

    def stop(self) -> None:
        pass


class Continuous:
    """transformers' continuous batching, its manager kept. Each request has its own length."""

    def __init__(self, model: Any, settings: ContinuousBatchingConfig) -> None:
        config = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=PAD)
        self._manager = model.init_continuous_batching(config, settings)
        self._manager.start()
        self._num_asked = 0

    def run(self, work: Work) -> int:
        waiting = {}
        for prompt, num_tokens in work:
            self._num_asked += 1
            name = self._manager.add_request(
                list(prompt), f"r{self._num_asked}", max_new_tokens=num_tokens
            )
            waiting[name] = num_tokens
        count = 0
        while waiting:
            result = self._manager.get_result(timeout=LIMIT_S)
            if result is None or result.error is not None:
                raise RuntimeError(f"continuous batching failed: {result and result.error}")
            if result.is_finished():
                waiting.pop(result.request_id)
                count += len(result.generated_tokens)
        return count

    def stop(self) -> None:
        self._manager.stop(block=True, timeout=5)
        self._manager.destroy()


# What the work needs and no more: by default it takes most of the machine's memory.
CB_ON_CPU = {"page_size": 32, "num_blocks": 640, "max_batch_tokens": 512}


def contender(name: str, checkpoint: Path) -> tuple[Contender, Any]:
    """A contender on the CPU, and the tokenizer. Raises: KeyError for one that there is not."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    makers: dict[str, Callable[[], Contender]] = {
        OURS: lambda: Ours(model, tokenizer),
        STATIC_32: lambda: Static(model, 32),
        STATIC_8: lambda: Static(model, 8),
        CONTINUOUS: lambda: Continuous(model, ContinuousBatchingConfig(**CB_ON_CPU)),
    }
    return makers[name](), tokenizer
