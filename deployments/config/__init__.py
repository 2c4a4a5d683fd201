"""What the args of a model application may be: one class per backend, every default written once.

Unknown keys are refused everywhere. Secrets never stand here: only the names of the environment
variables that hold them, read by the backend on its own replica.
"""

from deployments.config.api import INFERENCE_PATHS, ApiConfig, ApiModel
from deployments.config.autoscaling import Autoscaling, ReplicaRange
from deployments.config.backend import BackendConfig, ShardedConfig
from deployments.config.checkpoint import CheckpointConfig
from deployments.config.echo import EchoConfig
from deployments.config.huggingface import HuggingFaceConfig, MemoryConfig
from deployments.config.settings import Config, EnvName, ModelId
from deployments.config.vllm import GPU_MEMORY_UTILIZATION, VLLMConfig

__all__ = [
    "GPU_MEMORY_UTILIZATION",
    "INFERENCE_PATHS",
    "ApiConfig",
    "ApiModel",
    "Autoscaling",
    "BackendConfig",
    "CheckpointConfig",
    "Config",
    "EchoConfig",
    "EnvName",
    "HuggingFaceConfig",
    "MemoryConfig",
    "ModelId",
    "ReplicaRange",
    "ShardedConfig",
    "VLLMConfig",
]
