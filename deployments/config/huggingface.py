"""What the args may be of a model that transformers runs, and the memory that it may have."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from deployments.config.checkpoint import CheckpointConfig
from deployments.config.settings import Config
from deployments.placement.amount import Amount


class MemoryConfig(Config):
    """What a model may use of its machine. Left out: all that is free, but no disk.

    `roundhouse plan` tells beforehand where the model would go.
    """

    gpu: Amount | None = Field(default=None, description="GPU memory, such as 15GiB; 0: no GPU")
    cpu: Amount | None = Field(
        default=None,
        description="RAM, such as 24GiB, libraries included; reserved with Ray. Left out, a model "
        "that streams from RAM to a GPU of `gpu` reserves what it plans for that",
    )
    disk: str | None = Field(
        default=None, min_length=1, description="a folder for weights that fit in neither"
    )
    batch: PositiveInt = Field(default=8, description="sequences at a time to have room for")
    context: PositiveInt = Field(
        default=2048, description="tokens that each of them may have, at most the model's context"
    )
    streaming: Literal["auto", "accelerate", "off"] = Field(
        default="auto",
        description="how weights that do not fit reach the model; off: they must fit",
    )


class HuggingFaceConfig(CheckpointConfig):
    """Any decoder that transformers can generate with, and models that embed texts."""

    default_target_requests: ClassVar[float] = 32

    backend: Literal["huggingface"] = "huggingface"
    task: Literal["auto", "generate", "embed"] = Field(
        default="auto",
        description="auto: embed what sentence-transformers saved or has no language model's head",
    )
    pooling: Literal["auto", "mean", "cls", "last", "max"] = Field(
        default="auto",
        description="how an embedder makes one vector of its tokens'; auto: as "
        "sentence-transformers would",
    )
    max_ongoing_requests: PositiveInt = 512  # a full batch, and a full queue
    allow_pickle: bool = Field(
        default=False,
        description="load weights from pickle files (.bin) where there are no safetensors; only "
        "tensors are taken from them",
    )
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        default="auto", description="auto: sdpa where the model gives the same with it, else eager"
    )
    max_batch_tokens: PositiveInt | None = Field(
        default=None,
        description="tokens of prompts and answers kept at a time, padding included; left out: "
        "what a share of the memory left beside the weights has room for",
    )
    max_sequences: PositiveInt = Field(
        default=256, description="answers that are generated at a time, each choice of `n` one"
    )
    max_queued_requests: PositiveInt = Field(
        default=256, description="requests that wait because the batch has no room; beyond: 429"
    )
    tool_call_parser: Literal["auto", "hermes", "llama3_json", "mistral", "none"] = Field(
        default="auto", description="how the model writes tool calls; auto: by its chat template"
    )
    prefill_chunk_tokens: PositiveInt = Field(
        default=512,
        description="tokens of one step while new prompts are read, running answers' included",
    )
    memory: MemoryConfig | None = Field(
        default=None, description="what the model may use; left out: its weights must fit"
    )

    @property
    def reserved_ram_bytes(self) -> int | None:
        """The RAM that `memory` names."""
        return self.memory.cpu or None if self.memory else None
