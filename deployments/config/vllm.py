"""What the args may be of a model that vLLM serves."""

from typing import Literal

from pydantic import Field, field_validator

from deployments.config.backend import ShardedConfig
from deployments.config.checkpoint import CheckpointConfig

GPU_MEMORY_UTILIZATION = 0.95


class VLLMConfig(ShardedConfig, CheckpointConfig):
    """Models that vLLM serves, through vLLM's own OpenAI server."""

    backend: Literal["vllm"] = "vllm"
    gpu_memory_utilization: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="of the whole GPU, as vLLM means it; left out: 0.95 of the replica's share",
    )
    engine_options: dict[str, object] = Field(
        default_factory=dict, description="passed on to vLLM, which validates them"
    )

    @field_validator("quantization")
    @classmethod
    def _known_before_loading(cls, quantization: str) -> str:
        if quantization == "auto":
            raise ValueError("auto is for the huggingface backend; here set none, int8 or nf4")
        return quantization

    @property
    def memory_utilization(self) -> float:
        """The part of each GPU that vLLM takes for weights and cache."""
        given = self.gpu_memory_utilization
        return GPU_MEMORY_UTILIZATION * self.gpu_fraction if given is None else given
