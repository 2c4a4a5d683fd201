"""What the end of an upstream's answer says: whether it is whole, and what it cost.

An HTTP body can end cleanly in the middle of an answer, and clients would take the part for the
whole. Only the end of the answer is kept, and nothing is parsed before it has come.
"""

import re

import msgspec

from deployments.exchange import EVENT_STREAM, JSON, Tail

KEPT_BYTES = 1 << 20
DONE = b"[DONE]"
FINISHED = re.compile(
    rb'"finish_reason"\s*:\s*"|"type"\s*:\s*"(response\.(completed|incomplete|failed)|message_stop)"'
    rb'|"error"\s*:\s*[{"]'
)


class Counts(msgspec.Struct):
    """OpenAI's usage, in the words of chat and completions, and of responses and messages."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    def tail(self) -> Tail:
        prompt = self.prompt_tokens if self.prompt_tokens is not None else self.input_tokens
        completion = self.completion_tokens
        return Tail(
            prompt or 0, (completion if completion is not None else self.output_tokens) or 0
        )


class Response(msgspec.Struct):
    """A response object, as nested in the last event of /v1/responses."""

    usage: Counts | None = None


class Answer(msgspec.Struct):
    """The part of an answer, or of one event of it, that tells its cost."""

    usage: Counts | None = None
    response: Response | None = None


class AnswerEnd:
    """Fed with the pieces of one answer, in order."""

    def __init__(self, content_type: str) -> None:
        self._streamed = content_type.startswith(EVENT_STREAM)
        self._json = content_type.startswith(JSON)
        self._kept = bytearray()

    def feed(self, piece: bytes) -> None:
        self._kept += piece
        if len(self._kept) > 2 * KEPT_BYTES:
            del self._kept[:-KEPT_BYTES]

    @property
    def complete(self) -> bool:
        """A stream ended with `[DONE]`, or with an event that says why it ended; JSON with its
        last bracket; anything else if there was anything."""
        tail = bytes(self._kept[-65536:]).rstrip()
        if self._streamed:
            return tail.endswith(DONE) or FINISHED.search(tail) is not None
        return tail.endswith((b"}", b"]")) if self._json else bool(tail)

    def tail(self) -> Tail | None:
        """The tokens the answer cost, where it says so."""
        for text in self._candidates():
            try:
                answer = msgspec.json.decode(text, type=Answer)
            except msgspec.MsgspecError:
                continue
            counts = answer.usage or (answer.response and answer.response.usage)
            if counts:
                return counts.tail()
        return None

    def _candidates(self) -> list[bytes]:
        kept = bytes(self._kept)
        if not self._streamed:
            return [kept]
        events = kept.replace(b"\r\n", b"\n").rstrip().rsplit(b"\n\n", 3)
        data = [event.partition(b"data:")[2] for event in reversed(events[-3:])]
        return [text.strip() for text in data if b'"usage"' in text]
