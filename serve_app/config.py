"""The router's settings: what serve_config.yaml may say of it. Knows neither Serve nor any model.

Client keys never stand here, only the name of the environment variable that holds them. Whether the
models named here exist is not asked: that is known only to `serve_app.check`, which sees the file.
"""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from deployments.config import Config, EnvName, ModelId, ReplicaRange


class RouterAutoscaling(ReplicaRange):
    """Between how many replicas the router has, by what each can do: its event loop is one CPU's.

    A stream of 64 tokens was measured to cost a router 0.5 ms behind an API and 4 ms where each
    token came by itself (benchmarks/RESULTS.md): 0.6 of a CPU are 1200 or 150 of them a second. So
    it is the CPU that is watched; the number of requests only bounds what is under way.
    """

    min_replicas: PositiveInt = 1
    max_replicas: PositiveInt | None = Field(
        default=None, description="left out: one for every four CPUs of the cluster, at most 16"
    )
    target_cpu_use: float = Field(
        default=0.6, gt=0, le=1, description="of the one CPU that a replica can use"
    )
    target_ongoing_requests: PositiveFloat = Field(
        default=1000, description="under way in a replica, however little they cost"
    )
    upscale_delay_s: NonNegativeFloat = Field(
        default=5, description="how long there must be too much for the replicas that run"
    )


class RouterArgs(Config):
    """`args` of the router application. A change restarts the router's replicas, and only those."""

    api_keys_env: EnvName | None = Field(
        default=None,
        description="variable holding the clients' keys, comma-separated; null: no key is asked",
    )
    autoscaling: RouterAutoscaling | None = Field(
        default=None, description="left out: one replica, or what `deployments:` says"
    )


class RouterSettings(Config):
    """`user_config` of the Router deployment: reloaded by `serve deploy` without a restart."""

    aliases: dict[ModelId, ModelId] = Field(
        default_factory=dict, description="another name: the model (or alias) it stands for"
    )
    fallbacks: dict[ModelId, list[ModelId]] = Field(
        default_factory=dict,
        description="model: the models that answer in its place, in this order, if it cannot",
    )
    request_timeout_s: PositiveFloat = Field(
        default=600, description="for the whole answer, the stream included"
    )
    max_body_bytes: PositiveInt = Field(default=32 * 1024 * 1024, description="a larger one: 413")
    body_timeout_s: PositiveFloat = Field(
        default=30, description="time that a client may take to send its body"
    )
    max_ongoing_requests: PositiveInt = Field(
        default=3000,
        description="requests under way in each router replica, held ones included; beyond: 429",
    )
    max_ongoing_bytes: PositiveInt = Field(
        default=1024**3, description="their bodies, in each router replica; beyond: 429"
    )
    hold_s: NonNegativeFloat = Field(
        default=120,
        description="how long a request waits for a model that is starting; if it is thought to "
        "take longer, a fallback that runs answers, or else it is a 503 at once",
    )
    max_held_requests: NonNegativeInt = Field(
        default=256, description="requests that wait for one model, in each router replica"
    )
    max_held_bytes: PositiveInt = Field(
        default=256 * 1024 * 1024, description="their bodies, for all models of a router replica"
    )
    keepalive_s: PositiveFloat = Field(
        default=5, description="streams that wait for a model get a comment so often"
    )

    access_log: float = Field(
        default=1,
        ge=0,
        le=1,
        description="share of the requests with a line in the log of the router, and one in the "
        "backend's; those that fail (5xx) have one in any case, unless it is 0",
    )

    def resolve(self, name: str) -> str:
        """The model that `name` stands for: aliases followed to the end; a circle ends it too."""
        seen: set[str] = set()
        while name in self.aliases and name not in seen:
            seen.add(name)
            name = self.aliases[name]
        return name
