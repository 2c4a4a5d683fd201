"""Which tensor of the files is which parameter of the model, if they are the same.

Names of old checkpoints, and of bare decoders, are brought to today's by transformers' own rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from deployments.huggingface.streaming.merged import Merged, Part, merges_into_one
from deployments.placement.header import StoredTensor
from deployments.placement.weights import Weights

States = Mapping[str, StoredTensor]
Pieces = tuple[WeightConverter, list[Part]]


class Unstreamable(Exception):
    """Why a model's weights cannot be used as they lie in its files."""


@dataclass(frozen=True, slots=True)
class Matched:
    """The model's layers, and the tensors of each by the parameters' names within it; the tensors
    around them by the parameters' names in the model. `merged` are the parameters of each layer
    that are still to be put together. `stack` is the name of the list of layers in the model."""

    layers: tuple[nn.Module, ...]
    of_layers: tuple[States, ...]
    outer: States
    merged: tuple[Mapping[str, Merged], ...] = ()
    stack: str = ""


def match(model: Any, weights: Weights) -> Matched:
    """Finds every parameter of a model among the tensors. Raises: Unstreamable."""
    stack_name, stack = _stack(model, len(weights.layers))
    states = _states(model)
    there, parts = _renamed(model, weights, states)
    of_layers: tuple[dict[str, StoredTensor], ...] = tuple({} for _ in stack)
    merged: tuple[dict[str, Merged], ...] = tuple({} for _ in stack)
    outer = {}
    for name, state in states.items():
        index, _, rest = name.removeprefix(f"{stack_name}.").partition(".")
        is_of_layer = name.startswith(f"{stack_name}.")
        if is_of_layer and name in parts:
            rule, found = parts[name]
            merged[int(index)][rest] = Merged(name, tuple(state.shape), rule, tuple(found), model)
        elif is_of_layer:
            of_layers[int(index)][rest] = _found(name, state, there)
        else:
            outer[name] = _found(name, state, there)
    return Matched(tuple(stack), of_layers, outer, merged if any(merged) else (), stack_name)


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


def _renamed(
    model: Any, weights: Weights, states: Mapping[str, torch.Tensor]
) -> tuple[States, Mapping[str, Pieces]]:
    """The files' tensors by today's names, and of parameters that must be put together the rule and
    the parts, in the files' order. Raises: Unstreamable, if parameters are part of a tensor."""
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if not isinstance(rule, WeightRenaming)]
    rule_of = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    found, parts = {}, dict[str, Pieces]()
    for part in (*weights.layers, weights.outer):
        for tensor in sorted(part.tensors, key=lambda tensor: dot_natural_key(tensor.name)):
            name, converted = rename_source_key(
                tensor.name, renamings, converters, model.base_model_prefix, dict(states)
            )
            if converted is None:
                found[name] = tensor
            elif not merges_into_one(rule_of[converted]):
                raise Unstreamable(f"`{tensor.name}` is several parameters")
            else:
                parts.setdefault(name, (rule_of[converted], []))[1].append(Part(converted, tensor))
    for alias, name in (model.all_tied_weights_keys or {}).items():
        if name not in found and alias in found:
            found[name] = found[alias]
    return found, parts


def _found(name: str, state: torch.Tensor, there: States) -> StoredTensor:
    tensor = there.get(name)
    if tensor is None:
        raise Unstreamable(f"no tensor in its files is `{name}`, as the model has it")
    if tensor.shape != tuple(state.shape):
        raise Unstreamable(f"`{name}` has another shape in its files than in the model")
    return tensor
