"""Conversations to prompts, by the chat template of the checkpoint or of the operator."""

from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from deployments.body import MAX_ECHO_CHARS
from deployments.errors import InvalidRequest, StartError
from deployments.huggingface.protocol.message import Message
from deployments.huggingface.protocol.request import ChatRequest

NO_TEMPLATE = (
    "This model has no chat template, so it cannot take messages. Use /v1/completions, or have "
    "its operator set `chat_template`."
)
PROBE = [{"role": "user", "content": "Hello"}]
# OpenAI's newer name for the system's role, which templates do not know.
ROLES = {"developer": "system"}


def render(request: ChatRequest, tokenizer: Any, tools: list[dict[str, Any]] | None = None) -> str:
    """The prompt's text, up to where the model is to answer. `tools` are for the template.

    Raises: InvalidRequest when there is no template or it refuses the messages.
    """
    if not tokenizer.chat_template:
        raise InvalidRequest(NO_TEMPLATE, param="messages")
    try:
        return _apply(tokenizer, _turns(request.messages), tools)
    # Templates are programs: beside raise_exception() they fail as Python does.
    except (TemplateError, TypeError, ValueError, LookupError) as exc:
        reason = str(exc)[:MAX_ECHO_CHARS]
        raise InvalidRequest(
            f"The model's chat template refused the messages: {reason}", param="messages"
        ) from exc


def check_template(tokenizer: Any) -> None:
    """Raises: StartError for a template that is no valid Jinja."""
    try:
        if tokenizer.chat_template:
            _apply(tokenizer, PROBE)
    except TemplateSyntaxError as exc:
        raise StartError(
            f"The chat template is not valid Jinja: {exc.message} (line {exc.lineno}). "
            "Correct it, or name another file as `chat_template`."
        ) from exc
    except (TemplateError, TypeError, ValueError, LookupError):
        pass  # it may well demand another conversation than the probe


def _turns(messages: list[Message]) -> list[dict[str, Any]]:
    """The messages as templates know them; a tool's answer has the name of the tool."""
    calls = [call for message in messages for call in message.tool_calls or ()]
    names = {call.id: call.function.name for call in calls}
    return [_turn(message, names.get(message.tool_call_id or "")) for message in messages]


def _turn(message: Message, tool_name: str | None) -> dict[str, Any]:
    turn: dict[str, Any] = {
        "role": ROLES.get(message.role, message.role),
        "content": message.content,
    }
    if message.tool_calls:
        turn["tool_calls"] = [call.for_template() for call in message.tool_calls]
    optional = {"name": message.name or tool_name, "tool_call_id": message.tool_call_id}
    return turn | {name: value for name, value in optional.items() if value is not None}


def _apply(
    tokenizer: Any, turns: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None
) -> str:
    options = {"tokenize": False, "add_generation_prompt": True}
    return str(tokenizer.apply_chat_template(turns, tools=tools, **options))
