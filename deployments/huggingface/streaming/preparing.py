"""Layers that cannot be used as they lie in the checkpoint, made into ones that can."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from deployments.huggingface.streaming import repacked
from deployments.huggingface.streaming.layout import can_be_viewed, lay_out
from deployments.huggingface.streaming.modules import Matched, States
from deployments.huggingface.streaming.reader import Reader
from deployments.huggingface.streaming.ring import allocate
from deployments.placement.weights import CASTABLE
from deployments.progress import Report


@dataclass(frozen=True, slots=True)
class Making:
    """What layers are made: numbers of a type, and matrices packed, but for those of the modules
    named `unquantized`."""

    dtype: torch.dtype
    quantization: str = "none"
    unquantized: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """What tells it from others."""
        return str(self.dtype), self.quantization, *sorted(self.unquantized)

    def cast(self, tensor: Tensor) -> Tensor:
        """A tensor of numbers in the type, any other as it is."""
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def need_repacking(matched: Matched, stored: str, quantization: str) -> bool:
    """Whether layers must be cast to `stored`, safetensors' name of a type, moved, put together or
    quantised."""
    return (
        quantization != "none"
        or bool(matched.merged)
        or any(
            not can_be_viewed(tensor) or (tensor.dtype != stored and tensor.dtype in CASTABLE)
            for part in matched.of_layers
            for tensor in part.values()
        )
    )


def prepared(matched: Matched, making: Making, disk: Path, report: Report) -> Matched:
    """The same, its layers repacked in a folder of `disk`, and their modules made for that.

    Raises: StartError.
    """
    files = sorted(_files(matched))
    folder = disk / repacked.FOLDER / repacked.key(files, *making.names)
    reader = Reader(files)
    try:
        of_layers = repacked.repack(
            folder,
            len(matched.layers),
            lambda number: _layer(matched, number, making, reader),
            report,
        )
    finally:
        reader.close()
    if making.quantization != "none":
        _replace_linears(matched, making)
    return replace(matched, of_layers=tuple(of_layers), merged=())


def _files(matched: Matched) -> set[Path]:
    merged = (parameter for layer in matched.merged for parameter in layer.values())
    parts = {part.tensor.file for parameter in merged for part in parameter.parts}
    return parts | {tensor.file for part in matched.of_layers for tensor in part.values()}


def _replace_linears(matched: Matched, making: Making) -> None:
    from deployments.huggingface.streaming import packed

    for number, part in enumerate(matched.of_layers):
        for name in part:
            if _packs(matched, number, name, making) is not None:
                packed.replace(matched.layers[number], name, making.quantization, making.dtype)


def _packs(matched: Matched, number: int, name: str, making: Making) -> bool | None:
    """Whether a layer's parameter is packed: True, False if transposed before, None if not."""
    from deployments.huggingface.streaming import packed

    owner = f"{matched.stack}.{number}.{name}".rpartition(".")[0]
    if owner in making.unquantized:
        return None
    return packed.linear_weight(matched.layers[number], name)


def read(part: States, reader: Reader) -> dict[str, Tensor]:
    """Tensors in memory of their own. Raises: WeightsLost."""
    layout = lay_out(replace(tensor, name=name) for name, tensor in part.items())
    slot = allocate(layout.num_bytes)
    for block in reader.read(layout.ranges, memoryview(slot.numpy())):
        block.result()
    return {view.name: view.of(slot) for view in layout.views}


def _layer(
    matched: Matched,
    number: int,
    making: Making,
    reader: Reader,
) -> dict[str, Tensor]:
    """What is written of a layer."""
    made: dict[str, Tensor] = {}
    for name, tensor in read(matched.of_layers[number], reader).items():
        cast = making.cast(tensor)
        if making.quantization == "none":
            made[name] = cast.clone()
        else:
            upright = _packs(matched, number, name, making)
            made |= _packed(name, cast, upright, making.quantization)
    if matched.merged:
        for name, parameter in matched.merged[number].items():
            parts = {part.tensor.name: part.tensor for part in parameter.parts}
            made[name] = making.cast(parameter.made(read(parts, reader))).contiguous()
    return made


def _packed(
    name: str, weight: Tensor, upright: bool | None, quantization: str
) -> dict[str, Tensor]:
    from deployments.huggingface.streaming import packed

    if upright is None:
        return {name: weight.clone()}
    parts = packed.pack(weight if upright else weight.t(), quantization)
    owner = name.rpartition(".")[0]
    return {f"{owner}.{leaf}": part.contiguous() for leaf, part in parts.items()}
