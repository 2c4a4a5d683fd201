"""The two endpoints: each turns a body into choices to generate and the form of the answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from deployments.errors import UnsupportedEndpoint
from deployments.exchange import Exchange
from deployments.huggingface.engine.generation import Choice
from deployments.huggingface.engine.grammar import Source, json_source
from deployments.huggingface.engine.vocabulary import Vocabulary
from deployments.huggingface.protocol import chat, plan
from deployments.huggingface.protocol.echo import Echo, echo_of
from deployments.huggingface.protocol.formats import ChatFormat, CompletionFormat, Format
from deployments.huggingface.protocol.plan import TextModel, Wishes
from deployments.huggingface.protocol.request import (
    ChatRequest,
    CompletionRequest,
    GenerationFields,
    parse,
)
from deployments.huggingface.protocol.response import Identity, Response, Stream, Whole
from deployments.huggingface.protocol.tools.format import ToolChatFormat
from deployments.huggingface.protocol.tools.use import tool_use

DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is ready to run."""

    choices: tuple[Choice, ...]
    response: Response
    grammar: Source | None = None


def prepare(exchange: Exchange, model: TextModel) -> Prepared:
    """Reads, checks, renders and tokenizes a request: the slow part that needs no engine.

    Raises: UnsupportedEndpoint, InvalidRequest, ContextTooLong.
    """
    check_path(exchange.path)
    return ENDPOINTS[exchange.path](exchange, model)


def check_path(path: str) -> None:
    """Raises: UnsupportedEndpoint."""
    if path not in ENDPOINTS:
        raise UnsupportedEndpoint(
            f"This model does not answer this endpoint. It answers {' and '.join(ENDPOINTS)}."
        )


def _chat(exchange: Exchange, model: TextModel) -> Prepared:
    request = parse(ChatRequest, exchange.body)
    use = tool_use(request, model.tools)
    tools = use.for_template if use else None
    text = chat.render(request, model.vocabulary.tokenizer, tools)
    prompt = model.vocabulary.encode(text, add_special_tokens=False)
    plan.check_prompt(prompt, "messages", model.limits)
    grammar = use.source(_schema(request), model.vocabulary) if use else _grammar(request)
    wishes = _chat_wishes(request)
    if use:
        wishes = replace(wishes, shown_ids=use.shown_ids(model.vocabulary))
    if (
        grammar and not grammar.free
    ):  # it ends the answer, and what the template's stop strings say may be part of it
        wishes = replace(wishes, templated=False)
    choices = plan.choices(request, [prompt], wishes, model.limits)
    format_ = ToolChatFormat(use.new_reader, use.dialect.new_id) if use else ChatFormat()
    response = _response(exchange, request, format_, len(prompt))
    return Prepared(choices, response, grammar)


def _chat_wishes(request: ChatRequest) -> Wishes:
    num_logprobs = (request.top_logprobs or 0) if request.logprobs else None
    name, max_tokens = "max_completion_tokens", request.max_completion_tokens
    if max_tokens is None:
        name, max_tokens = "max_tokens", request.max_tokens
    return Wishes("messages", name, max_tokens, num_logprobs, templated=True)


def _completion(exchange: Exchange, model: TextModel) -> Prepared:
    request = parse(CompletionRequest, exchange.body)
    prompts = [_prompt_ids(prompt, model) for prompt in request.prompt]
    choices = plan.choices(request, prompts, _completion_wishes(request), model.limits)
    format_ = CompletionFormat(_echoes(request, prompts, model.vocabulary) if request.echo else ())
    num_prompt_tokens = sum(len(prompt) for prompt in prompts)
    response = _response(exchange, request, format_, num_prompt_tokens)
    return Prepared(choices, response, _grammar(request))


def _schema(request: GenerationFields) -> dict[str, Any] | None:
    return request.response_format.schema_ if request.response_format else None


def _grammar(request: GenerationFields) -> Source | None:
    schema = _schema(request)
    return None if schema is None else json_source(schema, "response_format")


def _completion_wishes(request: CompletionRequest) -> Wishes:
    return Wishes(
        "prompt",
        "max_tokens",
        request.max_tokens,
        request.logprobs,
        DEFAULT_COMPLETION_TOKENS,
        scored=request.scored,
    )


def _prompt_ids(prompt: str | list[int], model: TextModel) -> tuple[int, ...]:
    if isinstance(prompt, str):
        ids = model.vocabulary.encode(prompt, add_special_tokens=True)
    else:
        ids = tuple(prompt)
    plan.check_prompt(ids, "prompt", model.limits)
    return ids


def _echoes(
    request: CompletionRequest, prompts: list[tuple[int, ...]], vocabulary: Vocabulary
) -> tuple[Echo, ...]:
    """The prompt of each choice."""
    echoes = [
        echo_of(asked if isinstance(asked, str) else None, ids, vocabulary, request.scored)
        for asked, ids in zip(request.prompt, prompts, strict=True)
    ]
    return tuple(echo for echo in echoes for _ in range(request.n or 1))


def _response(
    exchange: Exchange, request: GenerationFields, format_: Format, num_prompt_tokens: int
) -> Response:
    identity = Identity.of(format_.id_prefix + exchange.request_id, exchange.model)
    if not request.stream:
        return Whole(format_, identity, num_prompt_tokens)
    options = request.stream_options
    include_usage = bool(options and options.include_usage)
    return Stream(format_, identity, num_prompt_tokens, include_usage)


ENDPOINTS: Mapping[str, Callable[[Exchange, TextModel], Prepared]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
}
