import asyncio
import threading
from collections.abc import Iterator
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deployments.errors import BackendUnavailable, InvalidRequest, RoundhouseError
from deployments.exchange import Head
from deployments.huggingface.backend import HuggingFaceBackend
from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.engine.engine import Engine
from deployments.huggingface.engine.generation import Choice, Delta, Sampling, Stopping
from deployments.huggingface.engine.sequence import Sequence
from deployments.huggingface.engine.vocabulary import Vocabulary

from .asking import CHAT, COMPLETIONS, ask, exchange_of
from .gate import WAIT_S, Gate
from .models import VOCAB_SIZE, byte_tokenizer

ENDLESS = 10**6  # tokens: no test makes as many


class SteppedModel:
    """Says "a" for ever, each time it is allowed to; fails when the prompt is 1, dies at 2."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.entered: Queue[int] = Queue()
        self.allowed = threading.Semaphore(0)

    def _supports_logits_to_keep(self) -> bool:
        return False

    def get_output_embeddings(self) -> None:
        """It has none."""

    def parameters(self) -> list[torch.Tensor]:
        return []

    def modules(self) -> list[torch.nn.Module]:
        return []

    def __call__(self, **inputs: Any) -> Any:
        return self.forward(**inputs)

    def forward(self, input_ids: torch.Tensor, past_key_values: Any, **_: Any) -> Any:
        self.entered.put(int(input_ids[0, 0]))
        assert self.allowed.acquire(timeout=WAIT_S)
        if input_ids[0, 0] == 1:
            raise RuntimeError("a bug in a model")
        if input_ids[0, 0] == 2:
            raise SystemExit
        logits = torch.zeros(1, input_ids.shape[1], VOCAB_SIZE)
        logits[..., ord("a")] = 1.0
        return SimpleNamespace(logits=logits, past_key_values=past_key_values)


class Recorder:
    """A sink that lets a test wait for what comes."""

    def __init__(self) -> None:
        self.got: Queue[Delta | RoundhouseError] = Queue()
        self.add = self.fail = self.got.put

    def next(self) -> Delta | RoundhouseError:
        return self.got.get(timeout=WAIT_S)


@pytest.fixture
def model() -> SteppedModel:
    return SteppedModel()


@pytest.fixture
def engine(model: SteppedModel) -> Iterator[Engine]:
    engine = Engine(model, Capacity(max_sequences=1))
    engine.start()
    yield engine
    model.allowed.release(1000)
    engine.stop()


def sequence(sink: Recorder, prompt: int = 65, max_tokens: int = 2) -> Sequence:
    choice = Choice(0, (prompt,), Sampling(temperature=0), Stopping(max_tokens), streamed=True)
    return Sequence(choice, Vocabulary(byte_tokenizer()), sink)


def test_first_come_first_served(engine: Engine, model: SteppedModel) -> None:
    """One sequence runs, the others wait in the order in which they came."""
    sink = Recorder()
    engine.submit([sequence(sink, 65), sequence(sink, 66)])
    engine.submit([sequence(sink, 67)])
    model.allowed.release(6)
    order = [model.entered.get(timeout=WAIT_S) for _ in range(6)]
    assert order == [65, ord("a"), 66, ord("a"), 67, ord("a")]


def test_cancelling_frees_the_running_and_the_waiting(engine: Engine, model: SteppedModel) -> None:
    """A cancelled sequence makes no further token; one that waits never starts."""
    running, waiting, other = (sequence(Recorder(), prompt, 100) for prompt in (65, 66, 67))
    engine.submit([running, waiting, other])
    assert model.entered.get(timeout=WAIT_S) == 65
    assert (engine.num_running, engine.num_waiting) == (1, 2)
    engine.cancel([waiting])
    assert engine.num_waiting == 1
    engine.cancel([running])
    model.allowed.release()
    assert model.entered.get(timeout=WAIT_S) == 67
    assert (engine.num_running, engine.num_waiting) == (1, 0)


def test_a_failure_is_one_requests_own(engine: Engine, model: SteppedModel) -> None:
    """An exception in the model fails that sequence, without its text, and no other."""
    failing, fine = Recorder(), Recorder()
    engine.submit([sequence(failing, prompt=1), sequence(fine)])
    model.allowed.release(3)
    error = failing.next()
    assert isinstance(error, BackendUnavailable)
    assert "bug" not in error.message
    assert [fine.next(), fine.next()][1] == Delta(0, "a", 1, finish_reason="length")
    engine.check()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_death_of_the_thread_is_seen(engine: Engine, model: SteppedModel) -> None:
    """If the thread ends, what it had fails, health checks fail, and nothing new is taken."""
    dying, waiting = Recorder(), Recorder()
    engine.submit([sequence(dying, prompt=2), sequence(waiting)])
    model.allowed.release()
    assert isinstance(dying.next(), BackendUnavailable)
    assert isinstance(waiting.next(), BackendUnavailable)
    with pytest.raises(BackendUnavailable):
        engine.check()
    with pytest.raises(BackendUnavailable):
        engine.submit([sequence(Recorder())])


def test_stopping_fails_what_is_left(engine: Engine, model: SteppedModel) -> None:
    """A stop ends the running sequence after its token, and fails it and the waiting ones."""
    running, waiting = Recorder(), Recorder()
    engine.submit([sequence(running, max_tokens=ENDLESS), sequence(waiting)])
    model.entered.get(timeout=WAIT_S)
    model.allowed.release(ENDLESS)
    engine.stop()
    *_, last = running.got.queue
    assert isinstance(last, BackendUnavailable)
    assert isinstance(waiting.next(), BackendUnavailable)
    engine.stop()


async def test_leaving_clients_free_the_engine(
    random_backend: HuggingFaceBackend, gate: Gate
) -> None:
    """Closing a stream frees its choices at once; cancelling a task takes it from the queue."""
    engine = random_backend.engine
    gate.hold(after=2)
    stream = random_backend.exchange(exchange_of(CHAT, stream=True, n=50, ignore_eos=True))
    assert isinstance(await anext(stream), Head)
    await gate.reached()
    waiting_before = engine.num_waiting
    waiting = asyncio.create_task(ask(random_backend, CHAT, n=100))
    await asyncio.sleep(0)  # lets the task begin
    with pytest.raises(InvalidRequest):  # prepared after the one above, which is then queued
        await ask(random_backend, COMPLETIONS, prompt=[VOCAB_SIZE])
    assert engine.num_waiting == waiting_before + 100
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert engine.num_waiting == waiting_before
    await stream.aclose()
    assert engine.num_waiting == 0
    gate.open()
    assert (await ask(random_backend, CHAT, max_tokens=3)).tail.completion_tokens == 3
