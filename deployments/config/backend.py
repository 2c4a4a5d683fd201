"""What Serve must know of any backend before it starts one: replicas, GPUs, nodes."""

from typing import ClassVar, Self

from pydantic import Field, PositiveInt, model_validator

from deployments.config.autoscaling import Autoscaling
from deployments.config.settings import Config


class BackendConfig(Config):
    """What Serve must know of any backend before it starts one.

    `default_target_requests` is what one replica should have in hand if nobody says otherwise.
    """

    default_target_requests: ClassVar[float] = 64

    backend: str
    autoscaling: Autoscaling | None = Field(
        default=None, description="left out: one replica, or what `deployments:` says"
    )
    num_gpus: float | None = Field(
        default=None,
        ge=0,
        description="GPUs per replica; left out: `gpu_share` where the cluster has any, else none",
    )
    gpu_share: float = Field(
        default=1, gt=0, le=1, description="the part of a GPU that a small model is content with"
    )
    num_cpus: float = Field(default=0.5, ge=0, description="logical CPUs per replica")
    accelerator_type: str | None = Field(
        default=None,
        min_length=1,
        description="Ray's name of the GPUs that a replica must have, such as H100; it then asks "
        "for one also where the cluster has none yet",
    )
    label_selector: dict[str, str] = Field(
        default_factory=dict,
        description="labels of the nodes that a replica may be on, with Ray's operators: "
        "{market: '!spot'}; for an API model left out: off GPU nodes, if there are others",
    )
    max_ongoing_requests: PositiveInt = Field(
        default=256, description="requests a replica takes at a time, waiting ones included"
    )

    @property
    def reserved_ram_bytes(self) -> int | None:
        """What a replica declares to Ray of its RAM, so that no other is put beside it in vain."""
        return None

    @property
    def num_shards(self) -> int:
        """Processes that a replica is split into, each with a GPU where it has any."""
        return 1

    @property
    def spans_nodes(self) -> bool:
        """Whether its shards may be on several nodes."""
        return False

    @property
    def gpu_fraction(self) -> float:
        """The part that a replica has of each of its GPUs; 1: they are its own."""
        asked = self.gpu_share if self.num_gpus is None else self.num_gpus
        return asked if 0 < asked < 1 and self.num_shards == 1 else 1.0


class ShardedConfig(BackendConfig):
    """What a backend takes that can split a replica over several GPUs."""

    tensor_parallel_size: PositiveInt = 1
    pipeline_parallel_size: PositiveInt = Field(
        default=1, description="stages of `tensor_parallel_size` GPUs each, on one node or several"
    )

    @property
    def num_shards(self) -> int:
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def spans_nodes(self) -> bool:
        return self.pipeline_parallel_size > 1 and self.num_gpus != 0

    @model_validator(mode="after")
    def _gpus_for_parallelism(self) -> Self:
        """A replica needs exactly one GPU per shard; left out, it asks for them."""
        shards = self.num_shards
        if shards > 1 and self.num_gpus not in {None, 0, shards}:
            sizes = f"tensor_parallel_size {self.tensor_parallel_size}"
            if self.pipeline_parallel_size > 1:
                sizes += f" x pipeline_parallel_size {self.pipeline_parallel_size}"
            raise ValueError(
                f"num_gpus is {self.num_gpus:g}, but {sizes} needs {shards}; leave num_gpus out"
            )
        return self
