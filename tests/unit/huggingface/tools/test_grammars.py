"""What the grammars of tools let a model say, and where it may end."""

import json
from typing import Any

import pytest

from deployments.huggingface.engine.grammar import Grammars
from deployments.huggingface.engine.vocabulary import Vocabulary
from deployments.huggingface.protocol.request import ChatRequest, parse
from deployments.huggingface.protocol.tools.support import tool_support
from deployments.huggingface.protocol.tools.use import tool_use

from ..models import EOS, VOCAB_SIZE
from .speaking import HERMES, LLAMA3, MISTRAL, tokenizer, tool

SPECIALS: list[tuple[str, tuple[str, ...]]] = [
    (HERMES, ()),
    (HERMES, ("<tool_call>", "</tool_call>")),
    (LLAMA3, ()),
    (MISTRAL, ()),
    (MISTRAL, ("[TOOL_CALLS]",)),
    (MISTRAL, ("[TOOL_CALLS]", "[ARGS]")),
]


class Says:
    """A model of one template, asked with some tools."""

    def __init__(self, template: str, special: tuple[str, ...], **fields: Any) -> None:
        made = tokenizer(template, *special)
        body = {"messages": [{"role": "user", "content": "x"}], **fields}
        use = tool_use(parse(ChatRequest, json.dumps(body).encode()), tool_support(made, "auto"))
        assert use is not None
        self._vocabulary = Vocabulary(made)
        self._source = use.source(None, self._vocabulary)
        self._grammars = Grammars(self._vocabulary, VOCAB_SIZE, frozenset({EOS}))
        self.names_args = "[ARGS]" in special
        self.template = template

    def may(self, text: str) -> bool:
        """Whether it may begin its answer so."""
        return self._follow(text) is not None

    def may_end(self, text: str) -> bool:
        """Whether this may be all of its answer."""
        matcher = self._follow(text)
        return matcher is not None and (matcher.ended or matcher.allows(EOS))

    def call(self, name: str, arguments: str, closed: bool = True) -> str:
        """A call as the model writes it, or its beginning."""
        if self.template == HERMES:
            end = "}\n</tool_call>" if closed else ""
            return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}{end}'
        if self.template == LLAMA3:
            return f'{{"name": "{name}", "parameters": {arguments}{"}" if closed else ""}'
        if self.names_args:
            return f"[TOOL_CALLS]{name}[ARGS]{arguments}"
        end = "}]" if closed else ""
        return f'[TOOL_CALLS][{{"name": "{name}", "arguments": {arguments}{end}'

    def _follow(self, text: str) -> Any:
        assert self._source is not None
        matcher = self._grammars.compile(self._source).matcher()
        for token in self._vocabulary.encode(text, add_special_tokens=False):
            if not matcher.allows(token):
                return None
            matcher.take(token)
        return matcher


def strict(name: str, **parameters: Any) -> dict[str, Any]:
    asked = tool(name, **parameters)
    return asked | {"function": asked["function"] | {"strict": True}}


ADD = {"x": {"type": "integer"}}


@pytest.mark.parametrize(("template", "special"), SPECIALS)
def test_required_is_calls_and_nothing_else(template: str, special: tuple[str, ...]) -> None:
    """An answer that must call begins with a call of a tool on offer, whose arguments are valid,
    and may end after it."""
    tools = [tool("add", **ADD), tool("get")]
    model = Says(template, special, tools=tools, tool_choice="required")
    assert model.may_end(model.call("add", '{"x": 1}'))
    assert model.may_end(model.call("get", "{}"))
    assert not model.may("Hello")
    assert not model.may_end("")
    assert not model.may(model.call("nobody", "{", closed=False))
    assert not model.may(model.call("add", '{"x": "', closed=False))
    assert not model.may(model.call("get", '{"x', closed=False))


@pytest.mark.parametrize(("template", "special"), SPECIALS)
def test_strict_tools_are_enforced_in_any_call(template: str, special: tuple[str, ...]) -> None:
    """A model that is free to call may say what it likes; once it calls a strict tool its arguments
    are valid, and those of others are an object."""
    model = Says(template, special, tools=[strict("add", **ADD), tool("get", a={"enum": [1]})])
    for text in ("", "Hello.\nAll is {well}.", "<tool", "\u00e9"):
        assert model.may_end(text)
    before = "" if template == LLAMA3 else "I see. "
    assert model.may_end(before + model.call("add", '{"x": 1}'))
    assert model.may(before + model.call("get", '{"anything": [2]}'))
    assert not model.may(before + model.call("add", '{"x": "', closed=False))
    assert not model.may(before + model.call("add", "[", closed=False))
    assert not model.may(before + model.call("nobody", "{", closed=False))


@pytest.mark.parametrize(("template", "special"), SPECIALS)
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_parallel_calls_can_be_switched_off(
    template: str, special: tuple[str, ...], choice: str
) -> None:
    """Without parallel calls the answer is over after the first."""
    for parallel in (True, False):
        asked = {"tools": [strict("get")], "parallel_tool_calls": parallel, "tool_choice": choice}
        model = Says(template, special, **asked)
        one = model.call("get", "{}")
        between = "\n" if template == HERMES else ""
        twice = f"{one}{between}{one}"
        if template == MISTRAL and not model.names_args:
            twice = one.removesuffix("]") + ", " + one.removeprefix("[TOOL_CALLS][")
        assert model.may_end(one)
        assert model.may_end(twice) == (parallel and template != LLAMA3)


def test_without_strict_nothing_is_enforced() -> None:
    """Tools that need no grammar get none."""
    with pytest.raises(AssertionError):
        Says(HERMES, (), tools=[tool("get")]).may("x")
