"""Between how many replicas a deployment has, and what makes them more or fewer."""

from typing import Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from deployments.config.settings import Config


class ReplicaRange(Config):
    """The least and the most replicas, and how soon there are more or fewer: in Serve's names."""

    min_replicas: NonNegativeInt = 1
    max_replicas: PositiveInt | None = None
    upscale_delay_s: NonNegativeFloat = Field(
        default=2, description="how long there must be too much for the replicas that run"
    )
    downscale_delay_s: NonNegativeFloat = Field(
        default=300, description="how far back the highest demand still counts"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_replicas is not None and self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas is {self.min_replicas}, more than max_replicas {self.max_replicas}"
            )
        return self


class Autoscaling(ReplicaRange):
    """Between how many replicas a model has, and what makes them more or fewer.

    Serve's own names; what is left out is the backend's default and not Serve's. A change restarts
    the model's replicas, as any of its args does; `autoscaling_config` under `deployments:` takes
    the place of all of it, and restarts nothing.
    """

    min_replicas: NonNegativeInt = Field(default=1, description="0: none while nobody asks")
    max_replicas: PositiveInt = 1
    initial_replicas: NonNegativeInt | None = Field(
        default=None, description="at the start; left out: `min_replicas`"
    )
    target_ongoing_requests: PositiveFloat | None = Field(
        default=None, description="requests for each replica; left out: the backend's default"
    )
    target_kv_use: float = Field(
        default=0.8, gt=0, le=1, description="share of the memory for keys and values in use"
    )
    downscale_to_zero_delay_s: NonNegativeFloat = Field(
        default=600, description="how long nobody must have asked before the last replica goes"
    )

    @model_validator(mode="after")
    def _starts_within(self) -> Self:
        first = self.initial_replicas
        if first is not None and not self.min_replicas <= first <= self.max_replicas:
            raise ValueError("initial_replicas is not between min_replicas and max_replicas")
        return self
