"""A model whose layers come and go: assembled, hooked to the ring, and let go of."""

import logging
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from deployments.huggingface.streaming.device_ring import DeviceRing
from deployments.huggingface.streaming.layout import Layout, lay_out
from deployments.huggingface.streaming.lockstep import Action, Lockstep
from deployments.huggingface.streaming.modules import Matched, States, put
from deployments.huggingface.streaming.preparing import read
from deployments.huggingface.streaming.reader import Reader
from deployments.huggingface.streaming.ring import Ring
from deployments.placement.arrangement import Tier
from deployments.progress import Progress, Report, Shard

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")
LOADING = "loading resident weights"


class Streamer:
    """Reads what is resident, and keeps the ring turning under the rest."""

    def __init__(
        self,
        matched: Matched,
        tiers: Sequence[Tier],
        num_slots: int,
        device: torch.device = CPU,
    ) -> None:
        """Opens the files and begins to fill the ring. Raises: OSError, WeightsLost."""
        self._matched = matched
        self._streamed = [index for index, tier in enumerate(tiers) if tier is not Tier.RESIDENT]
        layouts = [_layout(matched.of_layers[index]) for index in self._streamed]
        self.reader = Reader({t.file for part in _parts(matched) for t in part.values()})
        self._device = device
        self._lockstep: Lockstep | None = None
        self._second = ThreadPoolExecutor(1, thread_name_prefix="weights-second-pass")
        if device.type == "cpu":
            self.ring: Ring | DeviceRing = Ring(layouts, num_slots, self.reader)
        else:
            kinds = [tiers[index] for index in self._streamed]
            self.ring = DeviceRing(layouts, kinds, num_slots, self.reader, device)

    @property
    def streamed_layers(self) -> tuple[nn.Module, ...]:
        """The model's layers that come and go, in order."""
        return tuple(self._matched.layers[index] for index in self._streamed)

    def together(self, first: Action, second: Action) -> None:
        """Two actions, each of which takes a pass through the model, in one pass over the weights.
        One that fails does not end the other. Raises: what they raise."""
        self._lockstep = Lockstep(self._second)
        try:
            self._lockstep.run(first, second)
        finally:
            self._lockstep = None

    def attach(self, model: Any, dtype: torch.dtype, report: Report) -> None:
        """Gives the model all its weights. The files are closed when the model is gone.

        Raises: WeightsLost.
        """
        weakref.finalize(model, _close, self.reader, self._second)
        model.streamer = self
        self._load_resident(model, dtype, report)
        for index, layer in enumerate(self._streamed):
            module = self._matched.layers[layer]
            for name, tensor in self.ring.views(index).items():
                put(module, name, tensor)
            self._hook(module, index)
        _finish(model)

    def _hook(self, module: nn.Module, index: int) -> None:
        """Lets a layer be in its slot when it runs, and leave it afterwards."""

        def acquire(module: nn.Module, args: Any) -> None:
            self.ring.acquire(index)

        def release(module: nn.Module, args: Any, output: Any) -> None:
            lockstep = self._lockstep
            if lockstep is None or lockstep.is_last:
                self.ring.release(index)
            if lockstep is not None:
                lockstep.hand_over()

        module.register_forward_pre_hook(acquire)
        module.register_forward_hook(release)

    def _load_resident(self, model: Any, dtype: torch.dtype, report: Report) -> None:
        resident = set(range(len(self._matched.layers))) - set(self._streamed)
        outer = self._matched.outer.items()
        parts: list[tuple[Any, States]] = [(model, {name: tensor}) for name, tensor in outer]
        parts += [(self._matched.layers[i], self._matched.of_layers[i]) for i in sorted(resident)]
        total = sum(tensor.num_bytes for _, part in parts for tensor in part.values())
        done = 0
        for module, part in parts:
            report(Progress(LOADING, (Shard("resident", done, total),)))
            for name, tensor in read(part, self.reader).items():
                placed = _cast(tensor, dtype) if module is model else tensor
                put(module, name, placed.to(self._device))
            done += sum(tensor.num_bytes for tensor in part.values())
        report(Progress(LOADING, (Shard("resident", total, total),)))


def _close(reader: Reader, second: ThreadPoolExecutor) -> None:
    second.shutdown(wait=False)
    reader.close()


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _finish(model: Any) -> None:
    """What transformers does after it has loaded weights: computes the buffers that no file has,
    and ties what is tied."""
    model._move_missing_keys_from_meta_to_device(set(), {"": model.device}, None, None)
    model._initialize_missing_keys(is_quantized=False)
    model.tie_weights()


def _parts(matched: Matched) -> list[States]:
    return [*matched.of_layers, matched.outer]


def _layout(part: States) -> Layout:
    """A part's layout, its views under the parameters' names."""
    return lay_out(replace(tensor, name=name) for name, tensor in part.items())
