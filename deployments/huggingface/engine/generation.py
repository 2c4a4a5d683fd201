"""What is to be generated, and what has been: the data that requests, engine and answers share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from deployments.errors import RoundhouseError

# A token's log probability, and those of the likeliest tokens in its place, best first.
Score = tuple[float, tuple[tuple[int, float], ...]]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 is greedy; `top_k` 0 is no limit."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    num_logprobs: int | None = None  # alternatives to report with each token; None: no logprobs


@dataclass(frozen=True, slots=True)
class Stopping:
    """When an answer ends. Before `min_tokens` only nothing but `max_tokens` ends it."""

    max_tokens: int
    min_tokens: int = 0
    token_ids: frozenset[int] = frozenset()
    strings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer to generate. `streamed`: its text is wanted as it comes, not only whole;
    `adapter`: who is to make it, None for the base model; `shown_ids`: special tokens that are
    text here; `scored`: the prompt's own log probabilities are wanted too."""

    index: int
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    stopping: Stopping
    streamed: bool = False
    adapter: str | None = None
    shown_ids: frozenset[int] = frozenset()
    scored: bool = False


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log probability and, best first, those of the likeliest tokens in its place.

    Tokens are bytes: a token need not be whole characters. `offset` is where its text begins. Only
    the first token of a prompt has no log probability.
    """

    token: bytes
    logprob: float | None
    top: tuple[tuple[bytes, float], ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Delta:
    """What a choice has grown by. The last one of a choice has a finish reason, the first one the
    scores of the prompt's tokens but the first, where they are wanted."""

    index: int
    text: str
    num_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None
    prompt_scores: tuple[Score, ...] = ()


class Sink(Protocol):
    """Where the engine's thread puts what it makes. Neither call may wait."""

    def add(self, delta: Delta) -> None:
        """Takes what a choice has grown by."""

    def fail(self, error: RoundhouseError) -> None:
        """Takes the error that ended a choice."""
