"""Layers that cannot be used as they lie in the checkpoint, made into ones that can."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from deployments.huggingface.placing import FOLDER
from deployments.huggingface.streaming import repacked
from deployments.huggingface.streaming.layout import can_be_viewed, lay_out
from deployments.huggingface.streaming.modules import Matched, States
from deployments.huggingface.streaming.reader import Reader
from deployments.huggingface.streaming.ring import allocate
from deployments.placement.weights import CASTABLE
from deployments.progress import Report


def need_repacking(matched: Matched, stored: str, quantization: str) -> bool:
    """Whether layers must be cast to `stored`, safetensors' name of a type, moved or quantised."""
    return quantization != "none" or any(
        not can_be_viewed(tensor) or (tensor.dtype != stored and tensor.dtype in CASTABLE)
        for part in matched.of_layers
        for tensor in part.values()
    )


def prepared(
    matched: Matched, dtype: torch.dtype, quantization: str, disk: Path, report: Report
) -> Matched:
    """The same, its layers repacked in a folder of `disk`, and their modules made for that.

    Raises: StartError.
    """
    files = sorted({tensor.file for part in matched.of_layers for tensor in part.values()})
    folder = disk / FOLDER / repacked.key(files, str(dtype), quantization)
    reader = Reader(files)
    try:
        of_layers = repacked.repack(
            folder,
            len(matched.layers),
            lambda number: _made(matched, number, dtype, quantization, reader),
            report,
        )
    finally:
        reader.close()
    if quantization != "none":
        _replace_linears(matched, dtype, quantization)
    return replace(matched, of_layers=tuple(of_layers))


def _replace_linears(matched: Matched, dtype: torch.dtype, quantization: str) -> None:
    from deployments.huggingface.streaming import packed

    for layer, part in zip(matched.layers, matched.of_layers, strict=True):
        for name in part:
            if packed.linear_weight(layer, name) is not None:
                packed.replace(layer, name, quantization, dtype)


def read(part: States, reader: Reader) -> dict[str, Tensor]:
    """Tensors in memory of their own. Raises: WeightsLost."""
    layout = lay_out(replace(tensor, name=name) for name, tensor in part.items())
    slot = allocate(layout.num_bytes)
    for block in reader.read(layout.ranges, memoryview(slot.numpy())):
        block.result()
    return {view.name: view.of(slot) for view in layout.views}


def _made(
    matched: Matched, number: int, dtype: torch.dtype, quantization: str, reader: Reader
) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    for name, tensor in read(matched.of_layers[number], reader).items():
        cast = tensor.to(dtype) if tensor.is_floating_point() else tensor
        if quantization == "none":
            made[name] = cast.clone()
        else:
            made |= _packed(matched.layers[number], name, cast, quantization)
    return made


def _packed(layer: nn.Module, name: str, weight: Tensor, quantization: str) -> dict[str, Tensor]:
    from deployments.huggingface.streaming import packed

    upright = packed.linear_weight(layer, name)
    if upright is None:
        return {name: weight.clone()}
    parts = packed.pack(weight if upright else weight.t(), quantization)
    owner = name.rpartition(".")[0]
    return {f"{owner}.{leaf}": part.contiguous() for leaf, part in parts.items()}
