"""How a choice looks in OpenAI's JSON: as a chat's message, or as a completion's text."""

from typing import Any, Protocol

from deployments.huggingface.engine.generation import Delta, TokenLogprob
from deployments.huggingface.protocol.echo import Echo

Json = dict[str, Any]


class Format(Protocol):
    """What differs between the endpoints' answers."""

    id_prefix: str
    whole_object: str
    chunk_object: str

    def whole(self, delta: Delta) -> Json:
        """A choice that came in one piece."""

    def opening(self, delta: Delta) -> list[Json]:
        """What begins a choice in a stream, before its first piece."""

    def chunks(self, delta: Delta) -> list[Json]:
        """A piece of a choice in a stream, each item a chunk of its own."""


class ChatFormat:
    """/v1/chat/completions."""

    id_prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def whole(self, delta: Delta) -> Json:
        """A choice with its message."""
        return {
            "index": delta.index,
            "message": {"role": "assistant", "content": delta.text, "refusal": None},
            "logprobs": chat_logprobs(delta.logprobs),
            "finish_reason": delta.finish_reason,
        }

    def opening(self, delta: Delta) -> list[Json]:
        """The role, before any content."""
        return [chat_chunk(delta.index, {"role": "assistant", "content": ""})]

    def chunks(self, delta: Delta) -> list[Json]:
        """The content, then the reason why it ends with an empty delta, as OpenAI sends them."""
        chunks = []
        if delta.text or delta.logprobs:
            content = chat_chunk(delta.index, {"content": delta.text})
            content["logprobs"] = chat_logprobs(delta.logprobs)
            chunks.append(content)
        if delta.finish_reason:
            chunks.append(chat_chunk(delta.index, {}) | {"finish_reason": delta.finish_reason})
        return chunks


class CompletionFormat:
    """/v1/completions. `echoes` is, by choice, the prompt if the answer repeats it."""

    id_prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, echoes: tuple[Echo, ...] = ()) -> None:
        self._echoes = echoes

    def whole(self, delta: Delta) -> Json:
        """A choice with its text."""
        return _completion_choice(
            self._echoes[delta.index].before(delta) if self._echoes else delta
        )

    def opening(self, delta: Delta) -> list[Json]:
        """The prompt's text, where it is asked for."""
        return [_completion_choice(echo.alone(delta)) for echo in self._echoes[delta.index :][:1]]

    def chunks(self, delta: Delta) -> list[Json]:
        """One chunk, text and end together."""
        if self._echoes:
            delta = self._echoes[delta.index].shifted(delta)
        return [_completion_choice(delta)]


def chat_chunk(index: int, delta: Json) -> Json:
    """A chunk of a stream with one choice."""
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def chat_logprobs(tokens: tuple[TokenLogprob, ...]) -> Json | None:
    """The log probabilities of some tokens."""
    if not tokens:
        return None
    content = [
        _chat_token(token.token, token.logprob)
        | {"top_logprobs": [_chat_token(*candidate) for candidate in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _chat_token(token: bytes, logprob: float | None) -> Json:
    return {"token": _text(token), "logprob": logprob, "bytes": list(token)}


def _completion_choice(delta: Delta) -> Json:
    return {
        "index": delta.index,
        "text": delta.text,
        "logprobs": _completion_logprobs(delta.logprobs),
        "finish_reason": delta.finish_reason,
    }


def _completion_logprobs(tokens: tuple[TokenLogprob, ...]) -> Json | None:
    if not tokens:
        return None
    return {
        "tokens": [_text(token.token) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_with_chosen(token) for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }


def _with_chosen(token: TokenLogprob) -> dict[str, float] | None:
    """The alternatives and the chosen token: OpenAI lists up to `logprobs` + 1."""
    if token.logprob is None:
        return None
    return {_text(t): logprob for t, logprob in (*token.top, (token.token, token.logprob))}


def _text(token: bytes) -> str:
    r"""A token's text; where it is no whole characters, its bytes as `\xf0\x9f`, as OpenAI does."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in token)
