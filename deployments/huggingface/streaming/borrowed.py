"""A streamed model whose layers borrow the weights of those that are in the slots: what is to be
learnt of an architecture at the start is learnt without reading all weights some thirty times.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from deployments.huggingface.streaming.modules import put

States = Mapping[str, torch.Tensor]


@contextmanager
def borrowed_weights(model: Any) -> Iterator[None]:
    """Inside, nothing is read: a step takes every layer, and of those that stream the first few
    weights again and again. Models that do not stream, or whose layers differ, stay as they are."""
    streamer = getattr(model, "streamer", None)
    if streamer is None:
        yield
        return
    layers = streamer.streamed_layers
    states = [_states(layer) for layer in layers]
    if any(_shapes(of) != _shapes(states[0]) for of in states):
        yield
        return
    num_slots = streamer.ring.num_slots
    with streamer.ring.held():
        try:
            for index, layer in enumerate(layers):
                _lend(layer, states[index % num_slots])
            yield
        finally:
            for layer, own in zip(layers, states, strict=True):
                _lend(layer, own)


def _states(layer: nn.Module) -> States:
    return dict(layer.state_dict(keep_vars=True))


def _shapes(states: States) -> dict[str, torch.Size]:
    return {name: state.shape for name, state in states.items()}


def _lend(layer: nn.Module, states: States) -> None:
    for name, state in states.items():
        put(layer, name, state)
