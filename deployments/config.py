"""What the args of a model application may be: one class per backend, every default written once.

Unknown keys are refused everywhere. Secrets never stand here: only the names of the environment
variables that hold them, read by the backend on its own replica.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from deployments.placement.amount import Amount

EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,199}$")]
StopString = Annotated[str, Field(min_length=1)]
GPU_MEMORY_UTILIZATION = 0.95
AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Config(BaseModel):
    """The base of every setting: unknown keys refused, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Autoscaling(Config):
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
    upscale_delay_s: NonNegativeFloat = Field(
        default=2, description="how long there must be too much for the replicas that run"
    )
    downscale_delay_s: NonNegativeFloat = Field(
        default=300, description="how far back the highest demand still counts"
    )
    downscale_to_zero_delay_s: NonNegativeFloat = Field(
        default=600, description="how long nobody must have asked before the last replica goes"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas is {self.min_replicas}, more than max_replicas {self.max_replicas}"
            )
        first = self.initial_replicas
        if first is not None and not self.min_replicas <= first <= self.max_replicas:
            raise ValueError("initial_replicas is not between min_replicas and max_replicas")
        return self


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


class MemoryConfig(Config):
    """What a model may use of its machine. Left out: all that is free, but no disk.

    `roundhouse plan` tells beforehand where the model would go.
    """

    gpu: Amount | None = Field(default=None, description="GPU memory, such as 15GiB; 0: no GPU")
    cpu: Amount | None = Field(
        default=None, description="RAM, such as 24GiB, libraries included; reserved with Ray"
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
        default=256, description="requests that wait for room in the batch; beyond: 429"
    )
    tool_call_parser: Literal["auto", "hermes", "llama3_json", "mistral", "none"] = Field(
        default="auto", description="how the model writes tool calls; auto: by its chat template"
    )
    prefill_chunk_tokens: PositiveInt = Field(
        default=512,
        description="tokens of new prompts that are read between two steps of running answers",
    )
    memory: MemoryConfig | None = Field(
        default=None, description="what the model may use; left out: its weights must fit"
    )

    @property
    def reserved_ram_bytes(self) -> int | None:
        """The RAM that `memory` names."""
        return self.memory.cpu or None if self.memory else None


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


class EchoConfig(ShardedConfig):
    """The backend without a model, for trying out and testing everything around it."""

    default_target_requests: ClassVar[float] = 128

    backend: Literal["echo"] = "echo"
    num_gpus: float = 0
    start_delay_s: float = Field(default=0, ge=0)
