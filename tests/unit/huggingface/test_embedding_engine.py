"""How requests share an embedder: in turns, in one pass, and without harm to each other."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
import torch
from torch import nn

from deployments.errors import BackendOverloaded, BackendTimeout, BackendUnavailable
from deployments.exchange import Exchange
from deployments.huggingface.embedding.encoder import Encoder
from deployments.huggingface.embedding.engine import EmbeddingEngine
from deployments.huggingface.embedding.jobs import Job, Jobs
from deployments.huggingface.embedding.request import EmbeddingModel
from deployments.huggingface.embedding.service import Embedding
from deployments.huggingface.engine.vocabulary import Vocabulary
from tests.polling import PATIENCE_S, until

from .models import byte_tokenizer

BROKEN, DEADLY = 1, 2


class SteppedModel:
    """A vector is the first token; each pass waits until it is allowed. Some tokens harm it."""

    device = torch.device("cpu")
    config = SimpleNamespace(get_text_config=lambda: None)

    def __init__(self) -> None:
        self.passes: list[list[list[int]]] = []
        self.allowed = threading.Semaphore(0)

    def modules(self) -> Iterator[nn.Module]:
        return iter(())

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        rows = zip(input_ids.tolist(), attention_mask.tolist(), strict=True)
        self.passes.append([ids[: sum(mask)] for ids, mask in rows])
        assert self.allowed.acquire(timeout=PATIENCE_S)
        if (input_ids == BROKEN).any():
            raise RuntimeError("a bug in a model")
        if (input_ids == DEADLY).any():
            raise SystemExit
        return SimpleNamespace(last_hidden_state=input_ids[:, :, None].float())


@pytest.fixture
def model() -> SteppedModel:
    return SteppedModel()


@pytest_asyncio.fixture
async def engine(model: SteppedModel) -> AsyncIterator[EmbeddingEngine]:
    encoder = Encoder(model, nn.Identity(), ("cls",))
    engine = EmbeddingEngine(encoder, Jobs(max_jobs=3, max_batch_tokens=4))
    engine.start()
    yield engine
    model.allowed.release(1000)
    await asyncio.to_thread(engine.stop)


def job(*inputs: tuple[int, ...]) -> Job:
    return Job(inputs)


async def busy(engine: EmbeddingEngine, model: SteppedModel) -> Job:
    """Something that the model is at until it is allowed."""
    first = job((9,))
    engine.submit(first)
    await until(lambda: len(model.passes) == 1)
    return first


async def test_a_large_request_holds_up_no_small_one(
    engine: EmbeddingEngine, model: SteppedModel
) -> None:
    """What waits takes turns: a small request goes with the second pass of a large one at the
    latest, the longest texts first, and no pass is larger than its bound."""
    await busy(engine, model)
    large, small = job(*[(n,) * 2 for n in range(10, 17)]), job((20,), (21, 21))
    engine.submit(large)
    engine.submit(small)
    model.allowed.release(2)
    await until(lambda: len(model.passes) == 3)
    assert model.passes[1:] == [[[10, 10], [11, 11]], [[21, 21], [20]]]
    model.allowed.release(100)
    assert (await small.done)[:, 0].tolist() == [20, 21]
    assert (await large.done)[:, 0].tolist() == list(range(10, 17))
    assert all(sum(map(len, rows)) <= 4 for rows in model.passes)
    assert engine.num_waiting == 0


async def test_a_text_longer_than_a_pass_goes_alone(
    engine: EmbeddingEngine, model: SteppedModel
) -> None:
    """The bound of a pass refuses no text."""
    one = job((5,), (6,) * 9)
    engine.submit(one)
    model.allowed.release(2)
    assert (await one.done)[:, 0].tolist() == [5, 6]
    assert model.passes == [[[6] * 9], [[5]]]


async def test_a_failure_is_one_requests_own(
    engine: EmbeddingEngine, model: SteppedModel, caplog: pytest.LogCaptureFixture
) -> None:
    """A text on which the model fails takes no other with it, and its error shows nothing."""
    await busy(engine, model)
    wrong, right = job((BROKEN,), (7,)), job((8,))
    engine.submit(wrong)
    engine.submit(right)
    model.allowed.release(100)
    assert (await right.done).tolist() == [[8]]
    with pytest.raises(BackendUnavailable) as failed:
        await wrong.done
    assert "bug" not in failed.value.message
    assert "a bug in a model" in caplog.text
    engine.check()


async def test_a_cancelled_request_is_forgotten(
    engine: EmbeddingEngine, model: SteppedModel
) -> None:
    """Of a request that nobody waits for, no further text is embedded."""
    await busy(engine, model)
    gone = job(*[(n,) for n in range(10, 30)])
    engine.submit(gone)
    assert engine.num_waiting == 20
    engine.cancel(gone)
    assert engine.num_waiting == 0
    model.allowed.release(100)
    after = job((5,))
    engine.submit(after)
    await after.done
    assert len(model.passes) == 2


async def test_the_queue_is_bounded(engine: EmbeddingEngine, model: SteppedModel) -> None:
    """Beyond its bound a request is told when to come back."""
    await busy(engine, model)
    for _ in range(3):
        engine.submit(job((5,)))
    with pytest.raises(BackendOverloaded) as full:
        engine.submit(job((5,)))
    assert full.value.retry_after_s


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_death_of_the_thread_is_seen(
    engine: EmbeddingEngine, model: SteppedModel
) -> None:
    """If the thread ends, who waits is told, health checks fail, and nothing new is taken."""
    await busy(engine, model)
    dying, waiting = job((DEADLY, 5, 5, 5)), job((6, 6, 6, 6))
    engine.submit(dying)
    engine.submit(waiting)
    model.allowed.release(2)
    for one in (dying, waiting):
        with pytest.raises(BackendUnavailable):
            await one.done
    with pytest.raises(BackendUnavailable):
        engine.check()
    with pytest.raises(BackendUnavailable):
        engine.submit(job((5,)))


async def test_a_deadline_ends_the_wait(engine: EmbeddingEngine, model: SteppedModel) -> None:
    """A request that is not done in time is a timeout, and waits no longer."""
    first = await busy(engine, model)
    facts = EmbeddingModel(Vocabulary(byte_tokenizer()), 1, 99, 260)
    body = b'{"input": "ab", "model": "m"}'
    late = Exchange("/v1/embeddings", body, "r", "m", deadline_s=0.2)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as tokenizing, pytest.raises(BackendTimeout):
        await anext(Embedding(facts, engine).exchange(late, tokenizing))
    assert engine.num_waiting == 0
    model.allowed.release()
    assert (await first.done).tolist() == [[9]]
