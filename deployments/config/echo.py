"""What the args may be of the backend that has no model."""

from typing import ClassVar, Literal

from pydantic import Field

from deployments.config.backend import ShardedConfig


class EchoConfig(ShardedConfig):
    """The backend without a model, for trying out and testing everything around it."""

    default_target_requests: ClassVar[float] = 128

    backend: Literal["echo"] = "echo"
    num_gpus: float = 0
    start_delay_s: float = Field(default=0, ge=0)
