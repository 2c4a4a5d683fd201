"""From a request to what the engine shall generate, checked against the model that will do it."""

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.errors import ContextTooLong, InvalidRequest
from deployments.huggingface.engine.generation import Choice, Sampling, Stopping
from deployments.huggingface.engine.vocabulary import Vocabulary
from deployments.huggingface.protocol.request import MAX_PROMPTS, GenerationFields
from deployments.huggingface.protocol.tools.support import NO_TOOLS, ToolSupport

SEED_SPAN = 2**64
NO_LIMIT = 2**63


@dataclass(frozen=True, slots=True)
class Limits:
    """What the model can do, and what its checkpoint wants where a request says nothing."""

    max_model_len: int
    vocab_size: int
    eos_ids: frozenset[int]
    defaults: Mapping[str, float]
    stop_strings: tuple[str, ...] = ()  # of its chat template


@dataclass(frozen=True, slots=True)
class TextModel:
    """A model as requests see it."""

    vocabulary: Vocabulary
    limits: Limits
    tools: ToolSupport = NO_TOOLS


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the two endpoints call by different names, or do otherwise. An answer for which no
    `max_tokens` is asked gets `default_tokens` or what the context has left, whichever is less.
    `templated`: the prompt is of the chat template, so its stop strings count."""

    prompt_param: str
    max_tokens_param: str
    max_tokens: int | None
    num_logprobs: int | None
    default_tokens: int = NO_LIMIT
    templated: bool = False
    shown_ids: frozenset[int] = frozenset()
    scored: bool = False


def choices(
    request: GenerationFields, prompts: list[tuple[int, ...]], wishes: Wishes, limits: Limits
) -> tuple[Choice, ...]:
    """The answers to generate: `n` for each prompt, in the order of their indices.

    Raises: InvalidRequest, ContextTooLong.
    """
    n = request.n or 1
    if len(prompts) * n > MAX_PROMPTS:
        raise InvalidRequest(
            f"Invalid 'n': {len(prompts)} prompts with {n} choices each are more than "
            f"{MAX_PROMPTS} choices.",
            param="n",
        )
    samplings = [_sampling(request, wishes, limits, choice) for choice in range(n)]
    stoppings = [_stopping(request, len(prompt), wishes, limits) for prompt in prompts]
    return tuple(
        Choice(
            p * n + c,
            prompts[p],
            samplings[c],
            stoppings[p],
            bool(request.stream),
            shown_ids=wishes.shown_ids,
            scored=wishes.scored,
        )
        for p in range(len(prompts))
        for c in range(n)
    )


def check_prompt(ids: tuple[int, ...], param: str, limits: Limits) -> None:
    """Raises: InvalidRequest for a prompt without tokens or with ones that the model lacks."""
    if not ids:
        raise InvalidRequest(f"Invalid '{param}': it has no tokens.", param=param)
    if min(ids) < 0 or max(ids) >= limits.vocab_size:
        raise InvalidRequest(
            f"Invalid '{param}': token ids must be from 0 to {limits.vocab_size - 1}.", param=param
        )


def _sampling(request: GenerationFields, wishes: Wishes, limits: Limits, choice: int) -> Sampling:
    default = limits.defaults.get
    return Sampling(
        temperature=_first(request.temperature, default("temperature"), 1.0),
        top_p=_first(request.top_p, default("top_p"), 1.0),
        top_k=max(0, int(_first(request.top_k, default("top_k"), 0))),
        min_p=_first(request.min_p, default("min_p"), 0.0),
        # Choices of one request differ; the same request again gives the same choices.
        seed=None if request.seed is None else (request.seed + choice) % SEED_SPAN,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        repetition_penalty=_first(request.repetition_penalty, default("repetition_penalty"), 1.0),
        logit_bias=_logit_bias(request.logit_bias or {}, limits.vocab_size),
        num_logprobs=wishes.num_logprobs,
    )


def _first(asked: float | None, checkpoint: float | None, neutral: float) -> float:
    if asked is not None:
        return asked
    return neutral if checkpoint is None else checkpoint


def _logit_bias(bias: Mapping[str, float], vocab_size: int) -> dict[int, float]:
    """Raises: InvalidRequest for a key that is no token id."""
    for key in bias:
        short = len(key) < len(str(vocab_size)) + 1
        if not (short and key.isascii() and key.isdigit() and int(key) < vocab_size):
            raise InvalidRequest(
                f"Invalid 'logit_bias': keys must be token ids from 0 to {vocab_size - 1}.",
                param="logit_bias",
            )
    return {int(key): value for key, value in bias.items()}


def _stopping(
    request: GenerationFields, num_prompt_tokens: int, wishes: Wishes, limits: Limits
) -> Stopping:
    max_tokens = _max_tokens(num_prompt_tokens, wishes, limits.max_model_len)
    min_tokens = request.min_tokens or 0
    if min_tokens > max_tokens:
        raise InvalidRequest(
            f"Invalid 'min_tokens': it must not exceed the {max_tokens} tokens that the answer "
            "may have.",
            param="min_tokens",
        )
    # An id that the model lacks can never be generated, so it needs no error and no ban.
    asked = frozenset(i for i in request.stop_token_ids or () if 0 <= i < limits.vocab_size)
    strings = tuple(request.stop or ())
    if request.ignore_eos:
        return Stopping(max_tokens, min_tokens, asked, strings)
    if wishes.templated:
        strings += limits.stop_strings
    return Stopping(max_tokens, min_tokens, asked | limits.eos_ids, strings)


def _max_tokens(num_prompt_tokens: int, wishes: Wishes, max_model_len: int) -> int:
    """Raises: ContextTooLong."""
    left = max_model_len - num_prompt_tokens
    if wishes.max_tokens is None and left > 0:
        return min(wishes.default_tokens, left)
    asked = 1 if wishes.max_tokens is None else wishes.max_tokens
    if asked <= left:
        return asked
    raise ContextTooLong(
        f"This model's maximum context length is {max_model_len} tokens. However, you requested "
        f"{num_prompt_tokens + asked} tokens ({num_prompt_tokens} in the prompt, {asked} for the "
        "answer). Please shorten the prompt or the answer.",
        param=wishes.max_tokens_param if left > 0 else wishes.prompt_param,
    )
