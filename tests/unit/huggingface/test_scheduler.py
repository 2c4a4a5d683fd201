import inspect
from functools import partial
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from deployments.errors import BackendOverloaded, BackendUnavailable, ContextTooLong
from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.engine.generation import Sampling
from deployments.huggingface.engine.queue import Queue
from deployments.huggingface.engine.sampling import Sampled
from deployments.huggingface.engine.scheduler import Scheduler

from .architectures import KINDS, SMALL
from .scheduling import Asked, Event, generated, run

POISON = 99


class Watched(LlamaForCausalLM):
    """Notes the shapes `(batch, columns)` it is given; raises when the poison is decoded."""

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, **kwargs: Any) -> Any:
        self.shapes.append(tuple(input_ids.shape))
        if len(input_ids) > self.max_rows:
            raise torch.OutOfMemoryError("too many rows")
        if self.poisoned and input_ids.shape[1] == 1 and bool((input_ids == POISON).any()):
            raise RuntimeError("poison")
        return super().forward(input_ids, position_ids=position_ids, **kwargs)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(3)
    model = Watched(CONFIG_MAPPING["llama"](**SMALL | KINDS["llama"])).eval()
    model.shapes, model.poisoned, model.max_rows = [], False, 10**6
    return model


def started(model: Any, capacity: Capacity, *asked: Asked) -> tuple[Scheduler, Queue]:
    queue = Queue(capacity.max_queued_requests)
    for sequence in asked:
        queue.put([sequence])
    return Scheduler(Decoder(model), queue, capacity), queue


@torch.inference_mode()
def step(scheduler: Scheduler, count: int = 1) -> None:
    for _ in range(count):
        scheduler.step()


def test_a_long_prompt_is_read_in_chunks_between_steps(model: Any) -> None:
    """While a long prompt is read, who runs gets a token after every chunk, and both together are
    no more tokens than a chunk may have."""
    running, long = Asked((1,), 50), Asked(tuple(range(94)), 2)
    scheduler, queue = started(model, Capacity(prefill_chunk_tokens=16), running)
    step(scheduler)
    queue.put([long])
    model.shapes.clear()
    for count in range(6):
        tokens = len(running.answer)
        step(scheduler)
        assert len(running.answer) == tokens + 1
        assert model.shapes[2 * count :] == [(1, 15), (1, 1)]
    step(scheduler)
    assert model.shapes[-2:] == [(1, 4), (1, 1)]
    assert len(long.answer) == 1  # its first token does not wait
    step(scheduler)
    assert model.shapes[-1:] == [(2, 1)]  # its keys and values were moved in a step of their own


def test_eight_streams_wait_for_one_chunk_at_most(model: Any) -> None:
    """Between two tokens of any of 8 streams lies one chunk of a long prompt, never more, and it is
    smaller by their tokens."""
    streams = [Asked((n + 1,), 60) for n in range(8)]
    scheduler, queue = started(model, Capacity(prefill_chunk_tokens=24), *streams)
    step(scheduler, 5)
    queue.put([Asked(tuple(range(120)), 3)])
    while len(queue) or len(scheduler.running) > 8 or scheduler.num_batch_tokens > 8 * 61:
        tokens = [len(stream.answer) for stream in streams]
        model.shapes.clear()
        step(scheduler)
        assert [len(stream.answer) for stream in streams] == [count + 1 for count in tokens]
        chunks = [columns for _, columns in model.shapes if columns > 1]
        assert chunks in ([16], [8], [])
    assert min(len(stream.answer) for stream in streams) >= 5 + 8


def test_short_prompts_are_read_together(model: Any) -> None:
    """Newcomers whose prompts fit into a chunk, padded, share one forward."""
    asked = [Asked((n, n + 1, n + 2)[: n % 3 + 1], 3) for n in range(5)]
    scheduler, _ = started(model, Capacity(prefill_chunk_tokens=12), *asked)
    step(scheduler)
    assert model.shapes == [(4, 3), (4, 1)]


def test_choices_share_their_prompt(model: Any) -> None:
    """The choices of one prompt are read once, and each goes its own way."""
    prompt = tuple(range(20))
    asked = [Asked(prompt, 6, Sampling(seed=seed)) for seed in range(4)]
    greedy = Asked(prompt, 6)
    scheduler, _ = started(model, Capacity(prefill_chunk_tokens=8), *asked, greedy)
    step(scheduler, 3)
    assert model.shapes == [(1, 8), (1, 8), (1, 4), (5, 1)]
    step(scheduler, 4)
    assert len({tuple(sequence.answer) for sequence in asked}) == 4
    assert greedy.answer == generated(model, prompt, 6)


def test_none_overtakes(model: Any) -> None:
    """Who does not fit yet waits for room, and who would fit behind it waits too."""
    first, big, small = Asked((1,) * 10, 10), Asked((2,) * 20, 30), Asked((3,), 1)
    scheduler, queue = started(model, Capacity(max_batch_tokens=60), first, big, small)
    step(scheduler, 5)
    assert (scheduler.running, len(queue), scheduler.num_batch_tokens) == ([first], 2, 20)
    step(scheduler, 8)
    assert scheduler.running == [big]
    step(scheduler, 40)
    assert (scheduler.running, len(queue), scheduler.num_batch_tokens) == ([], 0, 0)
    assert small.finished


def test_padding_counts_as_memory(model: Any) -> None:
    """What is reserved is a column for each row up to the longest, since that is what is kept."""
    scheduler, _ = started(model, Capacity(), Asked((1,) * 10, 5), Asked((2,), 3), Asked((2,), 4))
    step(scheduler)
    assert scheduler.num_batch_tokens == 3 * 15


def test_cancelled_is_gone_at_the_next_step(model: Any) -> None:
    """A cancelled sequence takes part in no further step, whether it is read or runs."""
    running, reading = Asked((1,), 50), Asked(tuple(range(60)), 5)
    scheduler, queue = started(model, Capacity(prefill_chunk_tokens=8), running)
    step(scheduler)
    queue.put([reading])
    step(scheduler)
    queue.cancel([reading, running])
    model.shapes.clear()
    step(scheduler)
    assert (scheduler.running, scheduler.num_batch_tokens, model.shapes) == ([], 0, [])
    assert not reading.answer


def test_a_poisoned_sequence_fails_alone(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    """If a step fails, whose fault it was is found out; the others lose no token."""
    poisoned = Asked((7, 8), 12, Sampling(temperature=0, logit_bias={POISON: 100.0}))
    fine = [Asked((n,), 12) for n in range(3)]
    right = [generated(model, sequence.prompt, 12) for sequence in fine]
    model.poisoned = True
    run(model, Capacity(), [Event(at, s) for at, s in enumerate([*fine, poisoned])])
    assert [type(error) for error in poisoned.sink.errors] == [BackendUnavailable]
    assert [sequence.answer for sequence in fine] == right
    assert not any(sequence.sink.errors for sequence in fine)
    assert "poison" in caplog.text


def test_memory_that_runs_out_is_survived(
    model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If rows cannot join for want of memory, those who were to run together run one by one."""
    asked = [Asked((n + 1,) * (n + 1), 12) for n in range(3)]
    right = [generated(model, sequence.prompt, 12) for sequence in asked]
    monkeypatch.setattr(torch, "cat", out_of_memory)
    run(model, Capacity(), [Event(at, s) for at, s in enumerate(asked)])
    assert [sequence.answer for sequence in asked] == right
    assert "out of memory" in caplog.text


CAT = torch.cat


def out_of_memory(tensors: Any, *args: Any, **kwargs: Any) -> Any:
    """Concatenates, but not along the batch."""
    if not (args or kwargs):
        raise torch.OutOfMemoryError("out of memory")
    return CAT(tensors, *args, **kwargs)


def test_the_others_keep_each_other_company(model: Any) -> None:
    """Whose fault it was is found by halves: those beside it do not run one after the other."""
    poisoned = Asked((7, 8), 12, Sampling(temperature=0, logit_bias={POISON: 100.0}))
    fine = [Asked((n,), 12) for n in range(8)]
    right = [generated(model, sequence.prompt, 12) for sequence in fine]
    model.poisoned = True
    model.shapes.clear()
    run(model, Capacity(), [Event(0, s) for s in [*fine[:5], poisoned, *fine[5:]]])
    assert [sequence.answer for sequence in fine] == right
    assert len(poisoned.sink.errors) == 1
    one_by_one = len(fine) * 12
    assert len(model.shapes) < one_by_one * 0.7


def test_a_batch_that_is_too_large_becomes_smaller(model: Any) -> None:
    """Where memory runs out for so many rows, fewer of them go on together, and none is lost."""
    asked = [Asked((n + 1,), 12) for n in range(8)]
    right = [generated(model, sequence.prompt, 12) for sequence in asked]
    model.max_rows = 3
    model.shapes.clear()
    run(model, Capacity(), [Event(0, s) for s in asked])
    assert [sequence.answer for sequence in asked] == right
    assert not any(sequence.sink.errors for sequence in asked)
    assert max(rows for rows, _ in model.shapes[1:]) == 4  # tried, and too large again
    assert len(model.shapes) < 8 * 12 / 2 + 10


class Unreadable(Asked):
    """Cannot take its third token."""

    def take(self, sampled: Sampled) -> None:
        super().take(sampled)
        if len(self.answer) == 3:
            raise LookupError("no such token")


def test_a_failure_beyond_the_model_is_one_requests_own(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Text or sink failing end that sequence; those beside it go on in the same batch."""
    unreadable, fine = Unreadable((1, 2), 9), Asked((5, 6, 7), 9)
    right = generated(model, fine.prompt, 9)
    run(model, Capacity(), [Event(0, s) for s in (unreadable, fine)])
    assert len(unreadable.sink.errors) == 1
    assert (len(unreadable.answer), fine.answer) == (3, right)
    assert not any(sequence.suspects for sequence in (unreadable, fine))
    assert "no such token" in caplog.text


def test_a_bias_that_fails_is_one_requests_own(model: Any) -> None:
    """Biases and penalties are laid on all rows at once: whose failed is found by halves, and the
    others have their tokens."""
    biased = Asked((3,), 9, Sampling(temperature=0, logit_bias={10**6: 1.0}))
    others = [Asked((5, 6, n), 9, Sampling(temperature=0, logit_bias={n: 9.0})) for n in range(3)]
    alone = [Asked((5, 6, n), 9, Sampling(temperature=0, logit_bias={n: 9.0})) for n in range(3)]
    run(model, Capacity(), [Event(40 * n, s) for n, s in enumerate(alone)])
    run(model, Capacity(), [Event(0, s) for s in (*others, biased)])
    assert (len(biased.sink.errors), biased.answer) == (1, [])
    assert [s.answer for s in others] == [s.answer for s in alone]
    assert not any(s.sink.errors for s in others)


def out_of_memory_at(step: int) -> Any:
    """A sampler's `fill_clocks` that fails, not for good, at the draw of a token."""
    num_draws = 0

    def fill(clocks: torch.Tensor) -> None:
        nonlocal num_draws
        num_draws += 1
        if num_draws >= step:
            raise torch.OutOfMemoryError("no memory to sort")

    return fill


def test_a_failure_of_sampling_is_one_requests_own(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """If the next tokens of a batch cannot be drawn, whose fault it was ends with an error; the
    others get the tokens that they get alone, seeded ones too."""
    seeded = [Sampling(seed=seed) for seed in range(3)]
    alone = [Asked((n + 1,), 9, sampling) for n, sampling in enumerate(seeded)]
    for sequence in alone:
        run(model, Capacity(), [Event(0, sequence)])
    fine = [Asked((n + 1,), 9, sampling) for n, sampling in enumerate(seeded)]
    failing = Asked((9, 9), 9, Sampling(seed=5))
    failing.sampler.fill_clocks = out_of_memory_at(4)  # type: ignore[method-assign]
    run(model, Capacity(), [Event(0, sequence) for sequence in (*fine, failing)])
    assert [type(error) for error in failing.sink.errors] == [BackendUnavailable]
    assert len(failing.answer) == 3
    assert [sequence.answer for sequence in fine] == [sequence.answer for sequence in alone]
    assert not any(sequence.sink.errors for sequence in fine)
    assert "no memory to sort" in caplog.text


def test_an_answer_without_numbers_fails_alone(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the model gives NaN for a row, that answer ends with an error and never with tokens
    that mean nothing; the rows beside it are untouched."""
    forward = model.forward

    def overflowing(input_ids: torch.Tensor, **kwargs: Any) -> Any:
        output = forward(input_ids=input_ids, **kwargs)
        output.logits[(input_ids == POISON).any(-1)] = torch.nan
        return output

    broken = Asked((7, 8), 12, Sampling(seed=1, logit_bias={POISON: 100.0}))
    fine = [Asked((n,), 12) for n in range(3)]
    right = [generated(model, sequence.prompt, 12) for sequence in fine]
    overflowing.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    model.forward = overflowing
    run(model, Capacity(), [Event(0, sequence) for sequence in (*fine, broken)])
    assert [type(error) for error in broken.sink.errors] == [BackendUnavailable]
    assert broken.answer == [POISON]
    assert [sequence.answer for sequence in fine] == right
    assert "no numbers" in caplog.text


def test_a_lost_device_is_not_survived(model: Any) -> None:
    """An accelerator's error goes up to the engine, which ends."""
    sequence = Asked((1,), 3)
    scheduler, _ = started(model, Capacity(), sequence)
    model.forward = lost
    with pytest.raises(torch.AcceleratorError):
        step(scheduler)
    scheduler.fail(BackendUnavailable("over"))
    assert len(sequence.sink.errors) == 1


def lost(**_: Any) -> Any:
    raise torch.AcceleratorError("the device is lost")


def test_a_full_queue_says_when_to_come_back() -> None:
    """Beyond `max_queued_requests` a request, however many choices it has, is refused."""
    queue = Queue(2)
    queue.put([Asked((1,), 1), Asked((2,), 1)])
    queue.put([Asked((3,), 1)])
    with pytest.raises(BackendOverloaded) as full:
        queue.put([Asked((4,), 1)])
    assert full.value.retry_after_s
    assert len(queue) == 3


def test_room_in_the_batch_is_no_queue() -> None:
    """A burst is refused only beyond what the batch has room for and what may wait besides."""
    capacity = Capacity(max_batch_tokens=40, max_sequences=4)
    queue, admitted = Queue(2), partial(capacity.num_admitted, [Asked((1,) * 5, 5)])
    queue.put([Asked((1,), 9), Asked((2,), 9)], admitted)
    queue.put([Asked((3,), 9)], admitted)
    queue.put([Asked((4,), 1)], admitted)  # waits: no slot is left
    queue.put([Asked((5,), 1)], admitted)
    with pytest.raises(BackendOverloaded):
        queue.put([Asked((6,), 1)], admitted)
    assert len(queue) == 5
    wide = partial(capacity.num_admitted, [Asked((1,) * 20, 20)])
    with pytest.raises(BackendOverloaded):  # of slots there are, of columns not
        queue.put([Asked((6,), 1)], wide)


def test_what_can_never_fit_is_refused() -> None:
    """A request that is larger than the whole budget is the client's error, at once."""
    capacity = Capacity(max_batch_tokens=30)
    capacity.check([Asked((1,) * 10, 20)])
    with pytest.raises(ContextTooLong):
        capacity.check([Asked((1,), 1), Asked((1,) * 10, 21)])


@pytest.mark.parametrize("sampling", [Sampling(seed=5), Sampling(seed=6, top_p=0.9, top_k=30)])
def test_company_changes_no_seeded_text(model: Any, sampling: Sampling) -> None:
    """The same seed gives the same tokens alone, in company and after company has left."""
    alone, together = Asked((1, 2, 3), 30, sampling), Asked((1, 2, 3), 30, sampling)
    run(model, Capacity(), [Event(0, alone)])
    others = [Asked((n,) * n, 3 + n, Sampling(seed=n)) for n in range(1, 6)]
    run(model, Capacity(), [Event(2, together), *(Event(n, s) for n, s in enumerate(others))])
    assert alone.answer == together.answer
