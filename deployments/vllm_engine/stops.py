"""The model's own stops, laid under whatever vLLM made of a request.

In the engine, not in the body: chat, completions, responses and messages each spell stops in their
own way or not at all, and vLLM turns all of them into the same sampling parameters.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import msgspec

WITHOUT_TEMPLATE = ("/v1/completions",)

path_of_exchange: ContextVar[str] = ContextVar("path_of_exchange")


@dataclass(frozen=True, slots=True)
class Stops:
    """What ends an answer besides what its request says; `strings` where there is a template."""

    strings: tuple[str, ...] = ()
    token_ids: frozenset[int] = frozenset()

    def under(self, params: Any) -> Any:
        """vLLM's SamplingParams with these stops added, as a new object; as they are for a request
        that ignores the end of text."""
        templated = path_of_exchange.get() not in WITHOUT_TEMPLATE
        strings = self.strings if templated and params.detokenize else ()
        if params.ignore_eos or not (strings or self.token_ids):
            return params
        return msgspec.structs.replace(
            params,
            stop=[*params.stop, *strings],
            stop_token_ids=[*params.stop_token_ids, *self.token_ids],
        )
