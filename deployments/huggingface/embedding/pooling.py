"""Hidden states to vectors: pooling over the tokens, and the layers that follow it.

All of it in float32, whatever the model computes in. Source: sentence-transformers' Pooling and
Dense modules, with which the tests compare it.
"""

import json
from collections.abc import Mapping
from collections.abc import Sequence as Rows
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deployments.errors import StartError
from deployments.huggingface.embedding.recipe import Step

DENSE_WEIGHTS = "model.safetensors"
EXTRAS = {"use_residual": False, "module_input_name": "sentence_embedding"}


def pool(states: Tensor, mask: Tensor, modes: Rows[str]) -> Tensor:
    """`(batch, vector)` of states `(batch, tokens, hidden)`; those with mask 0 do not count."""
    states, weights = states.float(), mask[:, :, None].float()
    count = weights.sum(1).clamp(min=1e-9)
    columns = torch.arange(mask.shape[1], device=mask.device)
    rows = torch.arange(len(mask), device=mask.device)
    total = (states * weights).sum(1)
    pooled: list[Tensor] = []
    for mode in modes:
        if mode == "cls":
            pooled.append(states[rows, mask.argmax(1)])
        elif mode == "lasttoken":
            pooled.append(states[rows, (mask * columns).argmax(1)])
        elif mode == "max":
            pooled.append(states.masked_fill(weights == 0, -torch.inf).max(1).values)
        elif mode == "weightedmean":
            rising = weights * (columns[None, :, None] + 1)
            pooled.append((states * rising).sum(1) / rising.sum(1).clamp(min=1e-9))
        else:
            pooled.append(total / (count if mode == "mean" else count.sqrt()))
    return torch.cat(pooled, -1)


class Normalize(nn.Module):  # type: ignore[misc]
    """Scales vectors to length one."""

    def forward(self, vectors: Tensor) -> Tensor:
        """`(batch, vector)` to the same."""
        return nn.functional.normalize(vectors, dim=-1)


def head(steps: Rows[Step], device: torch.device) -> nn.Sequential:
    """What follows the pooling. Raises: StartError."""
    layers = [Normalize() if step.kind == "Normalize" else _dense(step.folder) for step in steps]
    return nn.Sequential(*layers).to(device).eval()


def _dense(folder: Path) -> nn.Module:
    settings = json.loads((folder / "config.json").read_bytes())
    for name, usual in EXTRAS.items():
        if settings.get(name, usual) != usual:
            raise StartError(
                f"The Dense layer {folder} has `{name}: {settings[name]}`, which is not served."
            )
    linear = nn.Linear(
        settings["in_features"], settings["out_features"], bias=settings.get("bias", True)
    )
    linear.load_state_dict(_weights(folder))
    return nn.Sequential(linear, _activation(settings, folder))


def _weights(folder: Path) -> Mapping[str, Tensor]:
    from safetensors.torch import load_file

    if not (folder / DENSE_WEIGHTS).is_file():
        raise StartError(
            f"The Dense layer {folder} has no {DENSE_WEIGHTS}. Save the model again with "
            "sentence-transformers."
        )
    tensors = load_file(folder / DENSE_WEIGHTS)
    return {name.removeprefix("linear."): tensor.float() for name, tensor in tensors.items()}


def _activation(settings: Mapping[str, Any], folder: Path) -> nn.Module:
    """Only torch's own: any other would be code that the checkpoint names."""
    name = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    found = getattr(nn, name.rpartition(".")[2], None) if name.startswith("torch.nn.") else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise StartError(
            f"The Dense layer {folder} has the activation {name}, which is not torch's."
        )
    return found()
