"""Conversations to prompts, by the chat template of the checkpoint or of the operator."""

from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from deployments.body import MAX_ECHO_CHARS
from deployments.errors import InvalidRequest, StartError
from deployments.huggingface.request import ChatRequest, Message

NO_TEMPLATE = (
    "This model has no chat template, so it cannot take messages. Use /v1/completions, or have "
    "its operator set `chat_template`."
)
PROBE = [{"role": "user", "content": "Hello"}]
# OpenAI's newer name for the system's role, which templates do not know.
ROLES = {"developer": "system"}


def render(request: ChatRequest, tokenizer: Any) -> str:
    """The prompt's text, up to where the model is to answer.

    Raises: InvalidRequest when there is no template or it refuses the messages.
    """
    if not tokenizer.chat_template:
        raise InvalidRequest(NO_TEMPLATE, param="messages")
    try:
        return _apply(tokenizer, [_turn(message) for message in request.messages])
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


def _turn(message: Message) -> dict[str, str]:
    turn = {"role": ROLES.get(message.role, message.role), "content": message.content}
    return turn if message.name is None else turn | {"name": message.name}


def _apply(tokenizer: Any, turns: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
