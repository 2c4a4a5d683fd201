"""The catalogue: what a `model_type` means. Data is in catalog.yaml; this reads and applies it."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, PositiveInt

from deployments.config import Config

CATALOG = Path(__file__).with_name("catalog.yaml")
PACKAGE_PREFIX = "package:"
GPU_MEMORY_GB = 80  # of the GPUs that are meant where the args name no others
GPU_MEMORY_ARG = "gpu_memory_gb"


class Unservable(ValueError):
    """Args from which the catalogue can make no model; `key` is the one that `message` is about."""

    def __init__(self, message: str, key: str = "model_type") -> None:
        super().__init__(f"{key}: {message}")
        self.message = message
        self.key = key


class Entry(Config):
    """One model: facts, the backend that serves it best, and the defaults of its args.

    Facts are of the checkpoint in `repo`; None where they are not known, or nobody's business.
    """

    description: str
    backend: str
    settings: dict[str, Any]
    backends: dict[str, dict[str, Any]] = Field(default_factory=dict)
    repo: str | None = None
    needs_checkpoint: str | None = Field(default=None, description="why `repo` cannot be served")
    architecture: str | None = None
    parameters: PositiveInt | None = None
    context: PositiveInt | None = Field(default=None, description="tokens")
    kv_bytes_per_token: PositiveInt | None = Field(default=None, description="of 16-bit values")
    weights: Literal["safetensors", "pickle"] | None = None
    license: str | None = None
    gated: bool = False
    gpus: dict[PositiveInt, PositiveInt] = Field(
        default_factory=dict, description="memory of one GPU in GB: GPUs of a replica"
    )
    notes: tuple[str, ...] = ()

    def num_gpus(self, memory_gb: float) -> int | None:
        """The GPUs of this memory that a replica takes; None where the catalogue knows none."""
        known = [size for size in self.gpus if size <= memory_gb]
        return self.gpus[max(known)] if known else None


@cache
def entries() -> Mapping[str, Entry]:
    """Every entry by `model_type`."""
    raw = yaml.safe_load(CATALOG.read_text(encoding="utf-8"))
    return {name: Entry.model_validate(entry) for name, entry in raw.items()}


def with_defaults(args: Mapping[str, Any]) -> dict[str, Any]:
    """`args` laid over what the catalogue says of its `model_type`.

    Raises: Unservable, a ValueError, for a `model_type` that is not there, or cannot be served as
    it is, and has no `checkpoint` of its own.
    """
    name = args.get("model_type")
    if name is None or (name not in entries() and "checkpoint" in args):
        return dict(args)
    if name not in entries():
        raise Unservable(
            f"{name!r} is not in the catalogue ({', '.join(entries())}); "
            "a model that is not needs a `checkpoint:`"
        )
    return _laid_over(str(name), entries()[str(name)], dict(args))


def _laid_over(name: str, entry: Entry, args: dict[str, Any]) -> dict[str, Any]:
    backend = str(args.get("backend", entry.backend))
    defaults = {"backend": backend, **entry.settings, **entry.backends.get(backend, {})}
    if entry.repo and "checkpoint" not in args:
        if entry.needs_checkpoint:
            raise Unservable(f"{name} cannot be served from {entry.repo}: {entry.needs_checkpoint}")
        defaults["checkpoint"] = entry.repo
        if entry.weights == "pickle" and backend == "huggingface":  # vLLM asks nobody
            defaults["allow_pickle"] = True
    if entry.gpus:
        num_gpus = _num_gpus(name, entry, {**args, "backend": backend})
        args.pop(GPU_MEMORY_ARG, None)
        if backend == entry.backend == "vllm" and num_gpus > 1:
            defaults["tensor_parallel_size"] = num_gpus
    return {**defaults, **args}


def _num_gpus(name: str, entry: Entry, args: Mapping[str, Any]) -> int:
    """What the args say, else the catalogue. Raises: Unservable for GPUs that are too small."""
    memory_gb: Any = args.get(GPU_MEMORY_ARG, GPU_MEMORY_GB)
    asked: Any = args.get("num_gpus")
    if not _is_number(memory_gb) or memory_gb <= 0:
        raise Unservable("should be the memory of one GPU in GB, such as 24", GPU_MEMORY_ARG)
    if _is_number(asked):
        return int(asked)
    num_gpus = entry.num_gpus(memory_gb)
    if num_gpus is None and args["backend"] == entry.backend:
        _check_smaller(name, entry, args)
    return num_gpus or 1


def _check_smaller(name: str, entry: Entry, args: Mapping[str, Any]) -> None:
    """Raises: Unservable, unless the args say how a model gets on with less memory."""
    ways = ("quantization", "tensor_parallel_size" if entry.backend == "vllm" else "memory")
    if not set(ways) & args.keys():
        known = " and ".join(f"{size} GB" for size in entry.gpus)
        raise Unservable(
            f"the catalogue knows {name} on GPUs of {known}, not of {args[GPU_MEMORY_ARG]:g} GB; "
            f"for those set {' or '.join(f'`{way}`' for way in ways)}",
            GPU_MEMORY_ARG,
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def checkpoint_path(checkpoint: str) -> str:
    """Where a checkpoint is: a folder of this distribution or of the operator, or a hub id."""
    if checkpoint.startswith(PACKAGE_PREFIX):
        root = Path(__file__).resolve().parent.parent
        return str(root / checkpoint.removeprefix(PACKAGE_PREFIX))
    return str(Path(checkpoint).expanduser()) if checkpoint.startswith("~") else checkpoint
