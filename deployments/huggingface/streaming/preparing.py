"""Layers that cannot be used as they lie in the checkpoint, made into ones that can."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from deployments.huggingface.placing import FOLDER
from deployments.huggingface.streaming import packed, repacked
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
        for layer, part in zip(matched.layers, matched.of_layers, strict=True):
            for name in part:
                if packed.linear_weight(layer, name) is not None:
                    packed.replace(layer, name, quantization, dtype)
    return replace(matched, of_layers=tuple(of_layers))


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
    layer, made = matched.layers[number], {}
    for name, tensor in read(matched.of_layers[number], reader).items():
        cast = tensor.to(dtype) if tensor.is_floating_point() else tensor
        upright = packed.linear_weight(layer, name) if quantization != "none" else None
        if upright is None:
            made[name] = cast.clone()
            continue
        parts = packed.pack(cast if upright else cast.t(), quantization)
        owner = name.rpartition(".")[0]
        made |= {f"{owner}.{leaf}": part.contiguous() for leaf, part in parts.items()}
    return made
