"""What the args of an application of API models may be. Keys are named here, never held."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from deployments.config.backend import BackendConfig
from deployments.config.settings import Config, EnvName, ModelId


class ApiModel(Config):
    """One model of a commercial API, or of any server that speaks OpenAI's protocol."""

    upstream_model: str = Field(min_length=1, description="the name that the upstream knows")
    base_url: str = Field(
        default="https://api.openai.com/v1",
        pattern=r"^https?://[^\s@]+$",
        description="where the upstream is, unless `base_url_env` is set in the environment",
    )
    base_url_env: EnvName | None = Field(default=None, description="variable holding the URL")
    api_key_env: EnvName | None = Field(
        default="OPENAI_API_KEY",
        description="variable holding the key; null for an upstream that needs none",
    )


# What a client may use the operator's key for: answers, not files, jobs or settings.
INFERENCE_PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/images/generations",
    "/v1/audio/speech",
)


class ApiConfig(BackendConfig):
    """Commercial APIs behind one CPU-only application."""

    default_target_requests: ClassVar[float] = 128  # it only passes bytes on

    backend: Literal["api"] = "api"
    model_type: ModelId | None = Field(default=None, description="an entry of the catalogue")
    models: dict[ModelId, ApiModel] = Field(min_length=1, description="model id: upstream")
    paths: tuple[str, ...] = Field(
        default=INFERENCE_PATHS, description="what is passed on; any other path is a 404"
    )
    num_gpus: Literal[0] = 0
    connect_timeout_s: PositiveFloat = 10.0
    max_connections: PositiveInt = Field(default=1024, description="to all upstreams together")
