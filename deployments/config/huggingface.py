"""What the args may be of a model that transformers runs, and the memory that it may have."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from deployments.config.checkpoint import CheckpointConfig
from deployments.config.settings import Config
from deployments.placement.amount import Amount

# The options of bitsandbytes, and what they have an effect on.
QUANTIZATIONS_OF = {
    "llm_int8_threshold": ("int8", "auto"),
    "llm_int8_skip_modules": ("int8", "nf4", "auto"),
    "llm_int8_enable_fp32_cpu_offload": ("int8", "auto"),
}


class MemoryConfig(Config):
    """What a model may use of its machine. Left out: all that is free, but no disk.

    `roundhouse plan` tells beforehand where the model would go.
    """

    gpu: Amount | None = Field(default=None, description="GPU memory, such as 15GiB; 0: no GPU")
    cpu: Amount | None = Field(
        default=None,
        description="RAM, such as 24GiB, libraries included; reserved with Ray. Left out, a model "
        "that must stream reserves what it plans for that",
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


class QuantizationOptions(Config):
    """What bitsandbytes is told besides `quantization`, by transformers' own names."""

    llm_int8_threshold: NonNegativeFloat | None = Field(
        default=None,
        description="activations beyond it are multiplied unrounded; 0: all are rounded; left out: "
        "6, as bitsandbytes has it. For int8, where no layer streams",
    )
    llm_int8_skip_modules: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(),
        description="modules that stay as they are, besides the output head, by whole parts of "
        "their names: `layers.0`, `mlp.down_proj`. For int8 and nf4",
    )
    llm_int8_enable_fp32_cpu_offload: bool | None = Field(
        default=None,
        description="what accelerate brings from RAM or disk to a GPU stays unquantised, the rest "
        "is int8; left out: where it must be. For int8 with `memory.streaming: accelerate`",
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

    quantization_options: QuantizationOptions = Field(
        default_factory=QuantizationOptions, description="for bitsandbytes, with `quantization`"
    )

    @model_validator(mode="after")
    def _options_have_their_quantization(self) -> Self:
        """An option that could have no effect is refused."""
        for option, kinds in QUANTIZATIONS_OF.items():
            given = getattr(self.quantization_options, option)
            if given not in (None, ()) and self.quantization not in kinds:
                raise ValueError(
                    f"quantization_options: {option} is for `quantization: "
                    f"{' or '.join(kinds)}`; here it is {self.quantization}"
                )
        by_accelerate = self.memory is not None and self.memory.streaming == "accelerate"
        if self.quantization_options.llm_int8_enable_fp32_cpu_offload and not by_accelerate:
            raise ValueError(
                "quantization_options: llm_int8_enable_fp32_cpu_offload is for `memory.streaming: "
                "accelerate`; otherwise the layers that stream are quantised too"
            )
        return self

    @property
    def reserved_ram_bytes(self) -> int | None:
        """The RAM that `memory` names."""
        return self.memory.cpu or None if self.memory else None
