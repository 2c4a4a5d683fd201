"""A node of a cluster, as far as placing replicas goes: what it declares in all, free or not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

ACCELERATOR = "accelerator_type:"  # how Ray names a node's accelerator among its resources
ACCELERATOR_PART = 0.001  # of a node's one; any number of replicas may be on it
ACCELERATOR_LABEL = "ray.io/accelerator-type"
NODE_ID_LABEL = "ray.io/node-id"
# By Ray's names of accelerators, where one stands for one size; an A100 may have 40 GB or 80.
MEMORY_GB = {
    "T4": 16,
    "L4": 24,
    "A10G": 24,
    "L40S": 48,
    "A100-40G": 40,
    "A100-80G": 80,
    "H100": 80,
    "H200": 141,
    "B200": 180,
}


@dataclass(frozen=True, slots=True)
class Node:
    """`resources` are Ray's, by its names; one that is not known is infinite. `gpu_memory_gb` is
    of one GPU, in 10^9 bytes."""

    name: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    known_gpu_memory_gb: float | None = None

    @classmethod
    def of_ray(
        cls, name: str, resources: Mapping[str, float], labels: Mapping[str, str] | None = None
    ) -> Self:
        """A node as the running cluster describes it."""
        return cls(name, dict(resources), dict(labels or {}))

    @property
    def num_gpus(self) -> float:
        return self.resources.get("GPU", 0.0)

    @property
    def num_cpus(self) -> float:
        return self.resources.get("CPU", 0.0)

    @property
    def accelerator(self) -> str | None:
        """Ray's name of its accelerators; the resource is what `accelerator_type` asks for."""
        names = (key.removeprefix(ACCELERATOR) for key in self.resources if _is_accelerator(key))
        return next(names, self.labels.get(ACCELERATOR_LABEL))

    @property
    def gpu_memory_gb(self) -> float | None:
        """None where it is not known."""
        return self.known_gpu_memory_gb or MEMORY_GB.get(self.accelerator or "")

    @property
    def kind(self) -> str:
        """What it is, as operators write it: `8xH100-80GB`."""
        if not self.num_gpus:
            return "CPU only" if math.isinf(self.num_cpus) else f"{self.num_cpus:g} CPUs"
        memory = f"-{self.gpu_memory_gb:g}GB" if self.gpu_memory_gb else ""
        return f"{self.num_gpus:g}x{(self.accelerator or 'GPU').split('-')[0]}{memory}"


def _is_accelerator(resource: str) -> bool:
    return resource.startswith(ACCELERATOR)
