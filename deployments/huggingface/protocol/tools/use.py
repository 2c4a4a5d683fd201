"""What one chat does with tools: which it offers, whether it must call them, what it shows."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from deployments.errors import InvalidRequest
from deployments.huggingface.engine.grammar import Source, json_rule
from deployments.huggingface.engine.vocabulary import Vocabulary
from deployments.huggingface.protocol.request import ChatRequest
from deployments.huggingface.protocol.tools.dialects import Dialect, Symbol
from deployments.huggingface.protocol.tools.fields import Function, Tool
from deployments.huggingface.protocol.tools.reader import Reader
from deployments.huggingface.protocol.tools.support import ToolSupport
from deployments.schema_parts import check_parts


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools that the model is told of. `required`: those of which it must call one."""

    dialect: Dialect
    tools: tuple[Tool, ...]
    required: tuple[Tool, ...]
    parallel: bool

    @property
    def for_template(self) -> list[dict[str, Any]]:
        """What the chat template is given."""
        return [tool.for_template() for tool in self.tools]

    @property
    def new_reader(self) -> Callable[[], Reader]:
        """Makes a reader for each answer."""
        names = frozenset(tool.function.name for tool in self.tools)
        return lambda: self.dialect.reader(names, None if self.parallel else 1)

    def shown_ids(self, vocabulary: Vocabulary) -> frozenset[int]:
        """The special tokens that are part of calls."""
        ids = {vocabulary.id_of(marker) for marker in self.dialect.markers}
        return vocabulary.special_ids & ids

    def source(self, schema: dict[str, Any] | None, vocabulary: Vocabulary) -> Source | None:
        """The grammar of the answer, if it must have one; `schema` is that of its content.

        Raises: InvalidRequest for schemas that are too large.
        """

        def symbol(marker: str) -> str:
            token = vocabulary.id_of(marker)
            return f"<[{token}]>" if token in vocabulary.special_ids else json.dumps(marker)

        functions = [tool.function for tool in self.required or self.tools]
        if self.required:
            return self._source(["start: calls"], functions, "tools", symbol)
        if schema is not None:
            check_parts([schema], "response_format")
            start = ["start: calls | content", f"content: {json_rule(schema)}"]
            return self._source(start, functions, "response_format", symbol)
        if any(function.strict for function in functions):
            start = ["start: mixed", *self.dialect.mixed(self.parallel, symbol)]
            functions = [function.as_called for function in functions]
            return replace(self._source(start, functions, "tools", symbol), free=True)
        return None

    def _source(
        self, start: list[str], functions: list[Function], param: str, symbol: Symbol
    ) -> Source:
        check_parts((function.schema_ for function in functions), "tools")
        rules = self.dialect.rules(functions, self.parallel, symbol)
        return Source("\n".join([*start, *rules]), param)


def tool_use(request: ChatRequest, support: ToolSupport) -> ToolUse | None:
    """What a chat does with tools; None if it does nothing with them.

    Raises: InvalidRequest for a model without support, for a choice of a tool that is not offered,
    and for an earlier call where the model knows of none.
    """
    if any(message.is_about_tools for message in request.messages):
        support.require("messages")
    required = _required(request)
    if not request.tools or request.tool_choice == "none":
        return None
    dialect = support.require("tools")
    parallel = request.parallel_tool_calls is not False
    return ToolUse(dialect, tuple(request.tools), required, parallel)


def _required(request: ChatRequest) -> tuple[Tool, ...]:
    """The tools of which one must be called.

    Raises: InvalidRequest.
    """
    choice, tools = request.tool_choice, request.tools or []
    if choice in (None, "none", "auto"):
        return ()
    if not tools:
        raise InvalidRequest(
            "Invalid 'tool_choice': it is only allowed when 'tools' are given.", param="tool_choice"
        )
    found = [tool for tool in tools if choice in ("required", [tool.function.name])]
    if not found:
        raise InvalidRequest(
            "Invalid 'tool_choice': it names no function of 'tools'.", param="tool_choice"
        )
    return tuple(found)
