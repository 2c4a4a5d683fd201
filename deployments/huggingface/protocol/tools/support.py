"""Whether a model can be told of tools, and how it writes its calls: found out by its template."""

from dataclasses import dataclass
from typing import Any

from deployments.errors import InvalidRequest
from deployments.huggingface.protocol.tools.dialects import (
    Dialect,
    Hermes,
    Llama3Json,
    Mistral,
    MistralNamed,
)

TOOL_NAME = "look_up_the_weather"
TOOL = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": "Says what the weather is.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
MESSAGES = [{"role": "user", "content": "Hello"}]
NOT_RENDERED = "the model's chat template does not render tools, so the model cannot know of them"
NOT_READ = (
    "how this model writes its calls is not known here; its operator may set `tool_call_parser`"
)
# XML in the tags of Hermes: Qwen-3-Coder, GLM-4.5.
NOT_HERMES = ("<function=", "<arg_key>")


@dataclass(frozen=True, slots=True)
class ToolSupport:
    """What there is for tools; without a dialect, `reason` says why."""

    dialect: Dialect | None = None
    reason: str = NOT_RENDERED

    def require(self, param: str) -> Dialect:
        """Raises: InvalidRequest, blaming `param`, for a model that cannot be given tools."""
        if self.dialect is None:
            raise InvalidRequest(
                f"Unsupported parameter: '{param}': {self.reason}.",
                param=param,
                code="unsupported_parameter",
            )
        return self.dialect


NO_TOOLS = ToolSupport()


def tool_support(tokenizer: Any, parser: str) -> ToolSupport:
    """What there is for the model of a tokenizer. `parser` is the operator's `tool_call_parser`."""
    if parser == "none":
        return ToolSupport(reason="this model's operator has switched tools off")
    if not _renders_tools(tokenizer):
        return ToolSupport()
    template = tokenizer.get_chat_template(tools=[TOOL])
    dialect = _dialect(_guess(template) if parser == "auto" else parser, tokenizer)
    return ToolSupport(dialect, "" if dialect else NOT_READ)


def _renders_tools(tokenizer: Any) -> bool:
    if not tokenizer.chat_template:
        return False
    try:
        text = tokenizer.apply_chat_template(MESSAGES, tools=[TOOL], tokenize=False)
    # Templates are programs, and this one has perhaps never been run.
    except Exception:  # noqa: BLE001
        return False
    return TOOL_NAME in text


def _guess(template: str) -> str:
    if "[TOOL_CALLS]" in template:
        return "mistral"
    if "<tool_call>" in template and not any(sign in template for sign in NOT_HERMES):
        return "hermes"
    if "ipython" in template and '"parameters"' in template:
        return "llama3_json"
    return "unknown"


def _dialect(name: str, tokenizer: Any) -> Dialect | None:
    if name == "mistral":
        return MistralNamed() if "[ARGS]" in tokenizer.get_vocab() else Mistral()
    return {"hermes": Hermes(), "llama3_json": Llama3Json()}.get(name)
