"""Asking a backend, and taking its answer apart."""

import json
from dataclasses import dataclass, field
from typing import Any

from deployments.exchange import Backend, Exchange, Head, Tail
from tests.contract.subjects import MODEL, Subject

CHAT = "/v1/chat/completions"


@dataclass(slots=True)
class Answered:
    """All that came back, in order."""

    items: list[Any] = field(default_factory=list)

    @property
    def head(self) -> Head:
        head: Head = self.items[0]
        return head

    @property
    def tail(self) -> Tail:
        tail: Tail = self.items[-1]
        return tail

    @property
    def pieces(self) -> list[bytes]:
        return [item for item in self.items if isinstance(item, bytes)]

    @property
    def json(self) -> Any:
        return json.loads(b"".join(self.pieces))

    @property
    def events(self) -> list[str]:
        text = b"".join(self.pieces).decode()
        assert text.endswith("\n\n")
        return [event.removeprefix("data: ") for event in text.strip().split("\n\n")]

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(event) for event in self.events if event != "[DONE]"]

    @property
    def text(self) -> str:
        """The content of the first choice, streamed or not."""
        if self.head.content_type.startswith("application/json"):
            return str(self.json["choices"][0]["message"]["content"])
        deltas = [c["choices"][0]["delta"] for c in self.chunks if c["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)


def exchange(
    fields: dict[str, Any], path: str = CHAT, request_id: str = "request", model: str = MODEL
) -> Exchange:
    return Exchange(path, json.dumps({"model": model, **fields}).encode(), request_id, model)


def saying(subject: Subject, text: str, **fields: Any) -> Exchange:
    """Asks for an answer that is `text`."""
    messages = [{"role": "user", "content": subject.say(text)}]
    return exchange({"messages": messages, "temperature": 0, **fields})


async def ask(backend: Backend, request: Exchange) -> Answered:
    answered = Answered()
    async for item in backend.exchange(request):
        answered.items.append(item)
    return answered
