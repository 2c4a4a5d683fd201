"""What a step of the batch does beside the model's arithmetic, counted in operations of torch's."""

from typing import Any

import torch

from deployments.huggingface.engine.batch import COLUMNS_AHEAD
from deployments.huggingface.engine.cache import RoomyLayer
from deployments.huggingface.engine.capacity import Capacity
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.engine.generation import Sampling
from deployments.huggingface.engine.queue import Queue
from deployments.huggingface.engine.scheduler import Scheduler

from .architectures import random_model
from .models import EOS
from .operations import Operations
from .scheduling import Asked

ENDLESS = Sampling(temperature=0, logit_bias={EOS: -100.0})


def started(*asked: Asked) -> Scheduler:
    """A scheduler whose batch these are in."""
    model: Any = random_model("llama")
    queue = Queue(len(asked))
    scheduler = Scheduler(Decoder(model), queue, Capacity())
    for sequence in asked:
        queue.put([sequence])
    while not all(sequence.answer for sequence in asked):
        scheduler.step()
    return scheduler


@torch.inference_mode()
def test_masks_are_made_ahead() -> None:
    """Of the steps of a batch that nobody joins or leaves one in many makes a mask, which is each
    row's tokens; who leaves, or joins, takes nothing of it from the others."""
    asked = [Asked(tuple(range(5, 9 + n)), 3 * COLUMNS_AHEAD, ENDLESS) for n in range(3)]
    scheduler = started(*asked)
    with Operations() as seen:
        for _ in range(COLUMNS_AHEAD):
            scheduler.step()
    assert sum(name.endswith(("pad", "pad_nd")) for name in seen.names) <= 2
    asked[0].cancelled = True
    scheduler._queue.put([late := Asked((7,), 3 * COLUMNS_AHEAD, ENDLESS)])
    for _ in range(COLUMNS_AHEAD + 2):
        scheduler.step()
    left = scheduler._batch
    assert set(left.sequences) == {*asked[1:], late}
    lengths = [sequence.num_context_tokens - 1 for sequence in left.sequences]
    assert left.mask.sum(-1).tolist() == lengths
    ends = torch.arange(left.mask.shape[1], 0, -1)
    assert torch.equal(left.mask, (ends <= torch.tensor(lengths)[:, None]).long())


@torch.inference_mode()
def test_a_column_is_appended_by_one_copy_and_two_views() -> None:
    """So for the keys, and so for the values."""
    states = torch.randn(3, 2, 7, 4)
    layer = RoomyLayer(states, -states)
    layer.update(*(new := (torch.randn(3, 2, 1, 4), torch.randn(3, 2, 1, 4))))  # makes room
    with Operations() as seen:
        keys, values = layer.update(*new)
    assert sorted(seen.names) == ["copy_"] * 2 + ["narrow"] * 4
    assert torch.equal(keys, torch.cat([states, new[0], new[0]], 2))
    assert torch.equal(values, torch.cat([-states, new[1], new[1]], 2))
