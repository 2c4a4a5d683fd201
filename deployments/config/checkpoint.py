"""What the args may be of every backend that loads weights."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from deployments.config.backend import BackendConfig
from deployments.config.settings import AdapterName, ModelId, StopString


class CheckpointConfig(BackendConfig):
    """What every backend that loads weights takes."""

    model_type: ModelId | None = Field(default=None, description="an entry of the catalogue")
    checkpoint: str = Field(min_length=1, description="a folder, or a Hugging Face hub id")
    chat_template: str | None = Field(
        default=None,
        description="a Jinja file; left out: the catalogue's, if it has one, else the checkpoint's",
    )
    stop: tuple[StopString, ...] = Field(
        default=(), description="strings that end the answers to chats, and are not shown"
    )
    stop_token_ids: tuple[NonNegativeInt, ...] = Field(
        default=(), description="tokens that end any answer, besides the checkpoint's, not shown"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["none", "int8", "nf4", "auto"] = Field(
        default="none", description="auto, for huggingface: int8 or nf4 where the weights need it"
    )
    max_model_len: PositiveInt | None = Field(
        default=None, description="tokens of prompt and answer together; left out: the model's"
    )
    trust_remote_code: bool = Field(
        default=False, description="run Python code that comes with the checkpoint"
    )
    adapters: dict[AdapterName, Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict,
        description="LoRA adapters by name, each a folder or a hub id; clients ask for one as "
        "MODEL:NAME",
    )

    def model_ids(self, model_id: str) -> dict[str, str | None]:
        """What clients may ask for: the model itself, and each of its adapters by its name."""
        return {model_id: None} | {f"{model_id}:{name}": name for name in self.adapters}
