"""Which tensor of the files is which parameter of the model, if they are the same.

Names of old checkpoints, and of bare decoders, are brought to today's by transformers' own rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from deployments.placement.header import StoredTensor
from deployments.placement.weights import Weights

States = Mapping[str, StoredTensor]


class Unstreamable(Exception):
    """Why a model's weights cannot be used as they lie in its files."""


@dataclass(frozen=True, slots=True)
class Matched:
    """The model's layers, and the tensors of each by the parameters' names within it; the tensors
    around them by the parameters' names in the model."""

    layers: tuple[nn.Module, ...]
    of_layers: tuple[States, ...]
    outer: States


def match(model: Any, weights: Weights) -> Matched:
    """Finds every parameter of a model among the tensors. Raises: Unstreamable."""
    stack_name, stack = _stack(model, len(weights.layers))
    states = _states(model)
    there = _renamed(model, weights, states)
    found = {name: _found(name, state, there) for name, state in states.items()}
    of_layers: tuple[dict[str, StoredTensor], ...] = tuple({} for _ in stack)
    outer = {}
    for name, tensor in found.items():
        if name.startswith(f"{stack_name}."):
            index, _, rest = name.removeprefix(f"{stack_name}.").partition(".")
            of_layers[int(index)][rest] = tensor
        else:
            outer[name] = tensor
    return Matched(tuple(stack), of_layers, outer)


def put(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Lets a parameter or buffer be this tensor from now on."""
    owner_name, _, leaf = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    if leaf in owner._parameters:
        tensor = owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    else:
        owner._buffers[leaf] = tensor
    tensor._is_hf_initialized = True  # transformers fills with noise what is not


def _stack(model: Any, num_layers: int) -> tuple[str, nn.ModuleList]:
    """The list of decoder layers, and its name. Raises: Unstreamable."""
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers
    ]
    if not lists:
        raise Unstreamable(f"{type(model).__name__} has no list of {num_layers} layers")
    return max(lists, key=lambda named: sum(p.numel() for p in named[1].parameters()))


def _states(model: Any) -> dict[str, torch.Tensor]:
    """What the files must have: parameters, tied ones once, and the buffers that are saved."""
    saved = model.state_dict(keep_vars=True)
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return dict(model.named_parameters()) | buffers


def _renamed(model: Any, weights: Weights, states: Mapping[str, torch.Tensor]) -> States:
    """The files' tensors by today's names. Raises: Unstreamable, if some must be put together."""
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if not isinstance(rule, WeightRenaming)]
    found = {}
    for part in (*weights.layers, weights.outer):
        for tensor in part.tensors:
            name, converted = rename_source_key(
                tensor.name, renamings, converters, model.base_model_prefix, dict(states)
            )
            if converted is not None:
                raise Unstreamable(f"`{tensor.name}` is only a part of a parameter")
            found[name] = tensor
    for alias, name in (model.all_tied_weights_keys or {}).items():
        if name not in found and alias in found:
            found[name] = found[alias]
    return found


def _found(name: str, state: torch.Tensor, there: States) -> StoredTensor:
    tensor = there.get(name)
    if tensor is None:
        raise Unstreamable(f"no tensor in its files is `{name}`, as the model has it")
    if tensor.shape != tuple(state.shape):
        raise Unstreamable(f"`{name}` has another shape in its files than in the model")
    return tensor
