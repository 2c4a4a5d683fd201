"""Which adapter each row of a forward pass has.

PEFT loads the adapters and holds their weights. Its own batches of several adapters
(`adapter_names`) look up the rows anew in every layer, from lists: so many waits for the device.
Here they are looked up once a pass, and each row is given the arithmetic that PEFT gives it alone:
the base's output plus the adapter's, added in the wider of their types.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from threading import local
from typing import Any

import torch
from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import Tensor

Group = tuple[str, Tensor | None]  # an adapter in PEFT's words, and its rows; None: all of them


class Adapters:
    """The adapters in a model. Without a `use` before it, a pass is the base model's.

    While `mixes`, every row of a pass may have another adapter. Else all rows have the same: for
    adapters that are more than a sum of two outputs (DoRA), and layers that do not see rows.
    """

    def __init__(self, tuner: Any, labels: Mapping[str, str]) -> None:
        self.names = tuple(labels)
        self._tuner = tuner
        self._labels = labels
        self._chosen = local()  # two passes that take turns have a thread each
        self._active: str | None = None
        self._device: torch.device = tuner.model.device
        self._tuner.disable_adapter_layers()
        layers = [m for m in tuner.modules() if isinstance(m, _LAYERS)]
        self.mixes = all(_is_sum(layer) for layer in layers)
        self._hooks = [self._hook(layer) for layer in layers if self.mixes]

    def use(self, rows: Rows[str | None]) -> None:
        """Chooses for this thread's next passes: by row, the name of an adapter, or None."""
        if self.mixes:
            self._chosen.groups = tuple(self._grouped(rows))
        else:
            self._activate(rows[0] if rows else None)

    def separate(self) -> None:
        """From now on all rows of a pass have the same adapter, and PEFT computes it."""
        for hook in self._hooks:
            hook.remove()
        self.mixes, self._hooks, self._chosen = False, [], local()

    @property
    def _groups(self) -> tuple[Group, ...]:
        return getattr(self._chosen, "groups", ())

    def _grouped(self, rows: Rows[str | None]) -> list[Group]:
        found = dict.fromkeys(name for name in rows if name is not None)
        if len(found) == 1 and None not in rows:
            return [(self._labels[name], None) for name in found]
        return [(self._labels[name], self._index(rows, name)) for name in found]

    def _index(self, rows: Rows[str | None], name: str) -> Tensor:
        return torch.tensor([r for r, n in enumerate(rows) if n == name], device=self._device)

    def _activate(self, name: str | None) -> None:
        if name == self._active:
            return
        if name is None:
            self._tuner.disable_adapter_layers()
        else:
            self._tuner.set_adapter(self._labels[name], inference_mode=True)
            self._tuner.enable_adapter_layers()
        self._active = name

    def _hook(self, layer: Any) -> Any:
        adapt = self._replace if isinstance(layer, ModulesToSaveWrapper) else self._add
        return layer.register_forward_hook(adapt)

    def _add(self, layer: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Adds to the base's output what the adapters make of its input."""
        for label, rows in self._groups:
            if label in layer.lora_A:
                down, up = layer.lora_A[label], layer.lora_B[label]
                inputs = _picked(args[0], rows).to(down.weight.dtype)
                added = up(down(inputs)) * layer.scaling[label]
                output = _put(output, rows, _picked(output, rows) + added)
        return output

    def _replace(self, wrapper: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Puts in what an adapter's own copy of the module makes of its input."""
        for label, rows in self._groups:
            if label in wrapper.modules_to_save:
                module = wrapper.modules_to_save[label]
                output = _put(output, rows, module(_picked(args[0], rows), *args[1:]))
        return output


_LAYERS = (BaseTunerLayer, AuxiliaryTrainingWrapper)


def _is_sum(layer: Any) -> bool:
    """Whether `Adapters` can do for this layer what PEFT does."""
    if isinstance(layer, ModulesToSaveWrapper):
        return True
    return (
        isinstance(layer, LoraLayer)
        and not isinstance(layer, ParamWrapper)
        and not layer.lora_variant
        and not layer.lora_embedding_A
        and all(type(down) is torch.nn.Linear for down in layer.lora_A.values())
        and not isinstance(layer.get_base_layer(), torch.nn.MultiheadAttention)
    )


def _picked(states: Tensor, rows: Tensor | None) -> Tensor:
    return states if rows is None else states.index_select(0, rows)


def _put(states: Tensor, rows: Tensor | None, new: Tensor) -> Tensor:
    new = new.to(states.dtype)
    return new if rows is None else states.index_copy_(0, rows, new)
