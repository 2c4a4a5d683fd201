"""How a chat's answer looks in OpenAI's JSON when tools are on offer."""

from collections.abc import Callable

from deployments.huggingface.engine.generation import Delta, TokenLogprob
from deployments.huggingface.protocol.formats import ChatFormat, Json, chat_chunk, chat_logprobs
from deployments.huggingface.protocol.tools.pieces import (
    Arguments,
    Begin,
    Call,
    Content,
    End,
    Piece,
    collect,
)
from deployments.huggingface.protocol.tools.reader import Reader


class ToolChatFormat(ChatFormat):
    """/v1/chat/completions. `new_reader` and `new_id` are the model's dialect's."""

    def __init__(self, new_reader: Callable[[], Reader], new_id: Callable[[], str]) -> None:
        self._new_reader = new_reader
        self._new_id = new_id
        self._streamed: dict[int, StreamedChoice] = {}

    def whole(self, delta: Delta) -> Json:
        """A choice with its message; without calls it is what it would be without tools."""
        reader = self._new_reader()
        parts = collect(reader.feed(delta.text) + reader.finish())
        if not parts.calls:
            return super().whole(delta)
        choice = super().whole(delta)
        choice["message"]["content"] = parts.text or None
        choice["message"]["tool_calls"] = [self._call(call) for call in parts.calls]
        return choice | {"finish_reason": _reason(delta.finish_reason)}

    def chunks(self, delta: Delta) -> list[Json]:
        """A piece of a choice in a stream, content and calls each in chunks of their own."""
        if delta.index not in self._streamed:
            self._streamed[delta.index] = StreamedChoice(self._new_reader(), self._new_id)
        return self._streamed[delta.index].chunks(delta)

    def _call(self, call: Call) -> Json:
        function = {"name": call.name, "arguments": call.arguments}
        return {"id": self._new_id(), "type": "function", "function": function}


class StreamedChoice:
    """A choice on its way. Log probabilities come with the next chunk that there is."""

    def __init__(self, reader: Reader, new_id: Callable[[], str]) -> None:
        self._reader = reader
        self._new_id = new_id
        self._index = -1
        self._logprobs: tuple[TokenLogprob, ...] = ()

    def chunks(self, delta: Delta) -> list[Json]:
        """The chunks for what it has grown by."""
        pieces = self._reader.feed(delta.text)
        if delta.finish_reason:
            pieces += self._reader.finish()
        self._logprobs += delta.logprobs
        deltas = [json for piece in pieces if (json := self._delta(piece))]
        if delta.finish_reason and self._logprobs and not deltas:
            deltas = [{"content": ""}]
        chunks = [chat_chunk(delta.index, json) for json in deltas]
        if chunks:
            chunks[0]["logprobs"] = chat_logprobs(self._logprobs)
            self._logprobs = ()
        if delta.finish_reason:
            called = self._index >= 0
            reason = _reason(delta.finish_reason) if called else delta.finish_reason
            chunks.append(chat_chunk(delta.index, {}) | {"finish_reason": reason})
        return chunks

    def _delta(self, piece: Piece) -> Json | None:
        match piece:
            case Content(text):
                return {"content": text}
            case Begin(name):
                self._index += 1
                function = {"name": name, "arguments": ""}
                head = {"index": self._index, "id": self._new_id(), "type": "function"}
                return {"tool_calls": [head | {"function": function}]}
            case Arguments(text):
                call = {"index": self._index, "function": {"arguments": text}}
                return {"tool_calls": [call]}
            case End(_, rest, well_formed) if rest.strip() and not well_formed:
                return {"content": rest}  # too late to take the call back, but no text is lost
        return None


def _reason(reason: str | None) -> str | None:
    return "tool_calls" if reason == "stop" else reason
