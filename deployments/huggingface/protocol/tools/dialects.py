"""The ways in which models write tool calls: how each is read, and its grammar.

Each is what the chat templates of its models show them. A grammar is Lark, as llguidance has it.
"""

import json
import random
import string
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

from deployments.huggingface.engine.grammar import json_rule
from deployments.huggingface.protocol.tools.fields import Function
from deployments.huggingface.protocol.tools.reader import Reader
from deployments.huggingface.protocol.tools.text import Malformed, Reading

Symbol = Callable[[str], str]  # how Lark names a marker: its special token's id, or its text


class Dialect(ABC):
    """One way. `markers` are what may be special tokens, and must then be shown to the reader; the
    first one begins `group`, one call or several, and `between` is what separates groups, in Lark;
    None if there is never more than one."""

    markers: ClassVar[tuple[str, ...]] = ()
    between: ClassVar[str | None] = None
    reader: ClassVar[type[Reader]]

    @abstractmethod
    def group(self, num_tools: int, parallel: bool, symbol: Symbol) -> list[str]:
        """The rules of `group`, from those of `head_0`, `arguments_0` and so on."""

    def rules(self, functions: Iterable[Function], parallel: bool, symbol: Symbol) -> list[str]:
        """The rules of `calls`: at least one call, and not more without `parallel`."""
        functions = list(functions)
        rules = [f"arguments_{n}: {json_rule(f.schema_)}" for n, f in enumerate(functions)]
        rules += [f"head_{n}: {self.head(f.name)}" for n, f in enumerate(functions)]
        rules += self.group(len(functions), parallel, symbol)
        return [*rules, f"calls: {self.calls(parallel, symbol)}"]

    def calls(self, parallel: bool, symbol: Symbol) -> str:
        """Nothing but calls."""
        one = f"{symbol(self.markers[0])} group"
        repeats = parallel and self.between is not None
        return f"{one} ({self.between} {one})*" if repeats else one

    def mixed(self, parallel: bool, symbol: Symbol) -> list[str]:
        """The rules of `mixed`: any text, with calls in it or without."""
        marker = symbol(self.markers[0])
        # A marker that is text ends the text before it as soon as it is there.
        lazy = "" if marker.startswith("<[") else "[lazy]"
        repeats = parallel and self.between is not None
        rule = "(begin group)* TEXT" if repeats else "begin group | TEXT"
        return [f"mixed: {rule}", f"begin{lazy}: TEXT {marker}", r"TEXT: /(.|\n)*/"]

    def head(self, name: str) -> str:
        """What comes before the arguments, in Lark."""
        return json.dumps(f'{{"name": "{name}", "arguments": ')

    def new_id(self) -> str:
        """An id for a call."""
        return f"call_{uuid.uuid4().hex[:24]}"


class HermesReader(Reader):
    """`<tool_call>{...}</tool_call>`, any number of times, in text."""

    def read(self) -> Reading[None]:
        """Reads the whole answer."""
        while (yield from self.content_until("<tool_call>")):
            yield from self.attempt(self._tagged())

    def _tagged(self) -> Reading[None]:
        yield from self.text.expect("<tool_call>")
        yield from self.text.skip_space()
        yield from self.call()
        yield from self.text.skip_space()
        yield from self.text.is_next("</tool_call>")
        if self.text.is_cut("</tool_call>"):
            self.text.read()  # the call itself is whole
        else:
            yield from self.text.expect("</tool_call>")


class Hermes(Dialect):
    """Hermes 2 and 3, Qwen 2.5 and 3, and many more."""

    markers = ("<tool_call>", "</tool_call>")
    between = r'"\n"'
    reader = HermesReader

    def group(self, num_tools: int, parallel: bool, symbol: Symbol) -> list[str]:
        """A call between tags, on a line of its own."""
        body = _any("body", (f"head_{n} arguments_{n}" for n in range(num_tools)))
        return [rf'group: "\n" body "}}\n" {symbol(self.markers[1])}', body]


class Llama3Reader(Reader):
    """An answer that is nothing but calls, as JSON; several are separated by semicolons."""

    def read(self) -> Reading[None]:
        """Reads the whole answer."""
        more = yield from self.attempt(self._first())
        while more:
            more = yield from self.attempt(self._next())
        yield from self.rest()

    def check_name(self, name: str) -> None:
        """Raises: Malformed: JSON that calls no tool is no call."""
        if name not in self.names:
            raise Malformed

    def _first(self) -> Reading[None]:
        yield from self.text.skip_space()
        if (yield from self.text.is_next("<|python_tag|>")):
            yield from self.text.expect("<|python_tag|>")
            yield from self.text.skip_space()
        yield from self.call()

    def _next(self) -> Reading[None]:
        yield from self.text.one_of(";")
        yield from self.text.skip_space()
        yield from self.call()


class Llama3Json(Dialect):
    """Llama 3.1, 3.2 and 3.3. Their templates take one call in an answer."""

    markers = ("<|python_tag|>",)
    reader = Llama3Reader

    def group(self, num_tools: int, parallel: bool, symbol: Symbol) -> list[str]:
        """One call."""
        return [_any("group", (f'head_{n} arguments_{n} "}}"' for n in range(num_tools)))]

    def calls(self, parallel: bool, symbol: Symbol) -> str:
        """Calls need no marker."""
        return "group"

    def mixed(self, parallel: bool, symbol: Symbol) -> list[str]:
        """What begins as JSON is a call."""
        return ["mixed: group | TEXT", r"TEXT: /([^{](.|\n)*)?/"]

    def head(self, name: str) -> str:
        """What comes before the arguments, in Lark."""
        return json.dumps(f'{{"name": "{name}", "parameters": ')


class MistralReader(Reader):
    """`[TOOL_CALLS]` and an array of calls, or, since 2025, `[TOOL_CALLS]name[ARGS]{...}`."""

    def read(self) -> Reading[None]:
        """Reads the whole answer."""
        while (yield from self.content_until("[TOOL_CALLS]")):
            yield from self.attempt(self._marked())

    def _marked(self) -> Reading[None]:
        yield from self.text.expect("[TOOL_CALLS]")
        yield from self.text.skip_space()
        if (yield from self.text.is_next("[")):
            yield from self._array()
        else:
            yield from self._named()

    def _array(self) -> Reading[None]:
        sign = yield from self.text.one_of("[")
        while sign != "]":
            yield from self.text.skip_space()
            yield from self.call()
            self.end(well_formed=True)
            sign = yield from self.text.one_of(",]")

    def _named(self) -> Reading[None]:
        head = yield from self.text.until("[ARGS]", "{")
        if (yield from self.text.is_next("[ARGS]")):
            yield from self.text.expect("[ARGS]")
            yield from self.text.skip_space()
        yield from self.arguments(head.partition("[CALL_ID]")[0].strip())


class Mistral(Dialect):
    """Mistral's models. Their templates insist on ids of nine letters and digits."""

    markers = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")
    reader = MistralReader

    def group(self, num_tools: int, parallel: bool, symbol: Symbol) -> list[str]:
        """An array of calls."""
        more = ' (", " call)*' if parallel else ""
        call = _any("call", (f'head_{n} arguments_{n} "}}"' for n in range(num_tools)))
        return [f'group: " "? "[" call{more} "]"', call]

    def new_id(self) -> str:
        """An id for a call."""
        return "".join(random.choices(string.ascii_letters + string.digits, k=9))


class MistralNamed(Mistral):
    """Those with a token [ARGS]."""

    between = '""'

    def group(self, num_tools: int, parallel: bool, symbol: Symbol) -> list[str]:
        """A name and arguments, with a token between them."""
        args = symbol("[ARGS]")
        return [_any("group", (f"head_{n} {args} arguments_{n}" for n in range(num_tools)))]

    def head(self, name: str) -> str:
        """What comes before the arguments, in Lark."""
        return json.dumps(name)


def _any(rule: str, alternatives: Iterable[str]) -> str:
    return f"{rule}: {' | '.join(alternatives)}"
