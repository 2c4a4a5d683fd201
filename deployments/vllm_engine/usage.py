"""The tokens of an exchange, for whatever of vLLM runs within it."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Usage:
    """The tokens of one exchange, counted as they leave the engine."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


usage_of_exchange: ContextVar[Usage] = ContextVar("usage_of_exchange")
