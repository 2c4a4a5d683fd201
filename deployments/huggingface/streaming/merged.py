"""Parameters that are several tensors in the files, as experts are: put together by transformers'
own rules, once, when layers are repacked.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.core_model_loading import WeightConverter

from deployments.errors import StartError
from deployments.placement.header import StoredTensor


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor in the files, and the pattern of the rule that takes it."""

    pattern: str
    tensor: StoredTensor


@dataclass(frozen=True, slots=True)
class Merged:
    """A parameter of a model by its full name and shape, and what it is made of, in order."""

    name: str
    shape: tuple[int, ...]
    rule: WeightConverter
    parts: tuple[Part, ...]
    model: Any

    def made(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The parameter, by its parts' names in the files. Raises: StartError."""
        rule = deepcopy(self.rule)
        for part in self.parts:
            rule.add_tensor(self.name, part.tensor.name, part.pattern, tensors[part.tensor.name])
        made = rule.convert(self.name, model=self.model, config=self.model.config).get(self.name)
        made = made[0] if isinstance(made, list) else made
        if made is None or tuple(made.shape) != self.shape:
            raise StartError(
                f"`{self.name}` cannot be put together from the checkpoint's files: they make "
                f"{None if made is None else tuple(made.shape)} of it, the model has {self.shape}."
            )
        return made


def merges_into_one(rule: Any) -> bool:
    """Whether a rule makes one parameter of its tensors, rather than several of them."""
    return isinstance(rule, WeightConverter) and len(rule.target_patterns) == 1
