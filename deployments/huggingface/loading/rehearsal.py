"""The largest step that was planned for, taken once before the replica is ready: an estimate
admits a model, the pass itself confirms it."""

from functools import partial
from typing import Any

import torch

from deployments.huggingface.engine import cache as caches
from deployments.huggingface.engine.decoder import Decoder
from deployments.placement.workload import Workload


def rehearse(decoder: Decoder, workload: Workload) -> None:
    """A chunk at the end of the longest prompt, beside a token of all others where both are one
    pass, and a step of the full batch; over empty caches.

    Raises: what the model raises where there is too little memory.
    """
    num_new = min(workload.chunk_tokens, workload.context)
    with torch.inference_mode():
        chunk = partial(step, decoder, 1, num_new, workload.context)
        if workload.batch > 1:
            decoder.both(partial(step, decoder, workload.batch - 1, 1, workload.context), chunk)
        else:
            chunk()
        step(decoder, workload.batch, 1, workload.context)


def step(decoder: Decoder, num_rows: int, num_new: int, width: int) -> None:
    """A pass of `num_new` columns of `num_rows` rows, after as many others as make `width`."""
    cache = empty_cache(decoder, num_rows, width - num_new) if num_new < width else None
    ids = torch.zeros((num_rows, num_new), dtype=torch.long, device=decoder.device)
    mask = torch.ones((num_rows, width), dtype=torch.long, device=decoder.device)
    decoder.forward(ids, mask, cache)


def empty_cache(decoder: Decoder, num_rows: int, width: int) -> Any:
    """Keys and values of rows and columns that nothing was put in; takes a pass."""
    one = torch.ones((1, 1), dtype=torch.long, device=decoder.device)
    _, cache = decoder.forward(torch.zeros_like(one), one, None)
    caches.fill(cache, num_rows, width)
    return cache
