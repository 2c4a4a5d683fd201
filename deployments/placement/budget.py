"""What a model may use: amounts that an operator gives, or that a machine has."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """`gpu_bytes` 0: there is no GPU, and the model runs where RAM is. `disk_bytes` None: no disk
    may be used. `base_bytes` of the RAM are Python's and the libraries' own."""

    gpu_bytes: int
    cpu_bytes: int
    disk_bytes: int | None = None
    base_bytes: int = 700 * 2**20

    @property
    def has_gpu(self) -> bool:
        """Whether the model runs on a GPU."""
        return self.gpu_bytes > 0


@dataclass(frozen=True, slots=True)
class Needs:
    """The least that something takes. `disk_bytes` None: no disk at all."""

    gpu_bytes: int
    cpu_bytes: int
    disk_bytes: int | None = None
