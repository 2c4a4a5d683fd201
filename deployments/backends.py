"""Every backend there is: the only list of them. A new backend is one line in it.

Implementations are named, not imported, so that a replica loads only the libraries it needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from deployments import catalog
from deployments.config import (
    ApiConfig,
    BackendConfig,
    EchoConfig,
    HuggingFaceConfig,
    VLLMConfig,
)
from deployments.exchange import Backend


@dataclass(frozen=True, slots=True)
class Kind:
    """A backend's settings, and where its class is: `module:Class`, called as Class(id, config)."""

    config: type[BackendConfig]
    implementation: str


BACKENDS: Mapping[str, Kind] = {
    "api": Kind(ApiConfig, "deployments.api:ApiBackend"),
    "echo": Kind(EchoConfig, "deployments.testing:EchoBackend"),
    "huggingface": Kind(HuggingFaceConfig, "deployments.huggingface.backend:HuggingFaceBackend"),
    "vllm": Kind(VLLMConfig, "deployments.vllm_engine.backend:VLLMBackend"),
}


def configure(args: Mapping[str, Any]) -> BackendConfig:
    """A model application's args, with the catalogue's defaults, checked.

    Raises: ValueError (pydantic's ValidationError is one), naming what is wrong.
    """
    settings = catalog.with_defaults(args)
    name = settings.get("backend")
    if name not in BACKENDS:
        raise ValueError(f"backend: {name!r} is not one of {', '.join(BACKENDS)}")
    return BACKENDS[str(name)].config.model_validate(settings)


def build(model_id: str, config: BackendConfig) -> Backend:
    """The backend for a configuration, not yet started."""
    module, _, name = BACKENDS[config.backend].implementation.partition(":")
    return cast(Backend, getattr(import_module(module), name)(model_id, config))
