"""Each chat template of the catalogue against the form that is known of its model.

The expected texts are built from tests/facts/models17.json: its canonical prompt with the words
put in, its default system prompt, its separators.
"""

from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from deployments import backends
from deployments.catalog import checkpoint_path, entries
from tests.unit.huggingface.models import byte_tokenizer

from .facts import LOCAL

CHATS = [key for key in LOCAL if LOCAL[key]["prompt_canonical"]]
BOS = "<s>"
QUESTION, ANSWER, AGAIN = "What is 2 + 2?", "It is 4.", "And  3 + 3?\n\nSay."
SYSTEM = "Answer in one word."
USER = {"role": "user", "content": QUESTION}
TURNS = [USER, {"role": "assistant", "content": ANSWER}, {"role": "user", "content": AGAIN}]


def render(key: str, *messages: dict[str, str]) -> str:
    """As both backends render: by transformers' own function, with the entry's template."""
    config: Any = backends.configure({"model_type": key, "checkpoint": "/m"})
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": BOS, "eos_token": "</s>"})
    tokenizer.chat_template = Path(checkpoint_path(config.chat_template)).read_text("utf-8")
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def default_system(key: str) -> str:
    """In full; the facts abbreviate two, which stand in full in the data set's own prompts."""
    known = LOCAL[key]
    default, prompt = str(known["default_system"]), known["prompt_in_ultrafeedback_code"]
    if "<<SYS>>" in prompt:
        return str(prompt.partition("<<SYS>>\n")[2].partition("\n<</SYS>>")[0])
    if default.startswith("A one-turn chat"):
        whole = LOCAL["ultralm-65b"]["prompt_in_ultrafeedback_code"]
        return str(whole.removeprefix("User: ").partition("</s>")[0])
    return default


def canonical(key: str, question: str, system: str | None = None) -> str:
    """The canonical prompt of the facts with a question, and a system prompt or the default."""
    known = LOCAL[key]
    text, default = str(known["prompt_canonical"]), default_system(key)
    if "{system}" in text:
        text = text.replace("{system}", default if system is None else system)
    elif system is not None and default:
        assert default in text
        text = text.replace(default, system)
    elif system is not None:  # no slot and no default: a paragraph of its own, before all else
        text = f"{system}{known['separators'][0]}{text}"
    # Only those of the family's models whose tokenizers begin every text so: LLaMA's.
    begins = known["architecture"].startswith("Llama") and not text.startswith(BOS)
    return (BOS if begins else "") + text.replace("{user}", question)


def later_turn(key: str) -> tuple[str, str]:
    """What stands before and after an answer in a conversation that goes on."""
    text = str(LOCAL[key]["prompt_canonical"])
    return {
        "[INST]": (" ", " </s><s>[INST] "),
        "USER": (" ", "</s>USER: "),
        "User": ("" if text.endswith(" ") else " ", _between(key) + "User: "),
        "### Instruction": ("", "</s>### Instruction:\n"),
        "": ("", "\n\n"),
        "<|system|>": ("\n", "<|end|>\n<|user|>\n"),
        "<|im_start|>user": ("", "<|im_end|>\n<|im_start|>user\n"),
    }[LOCAL[key]["roles"][0]]


def _between(key: str) -> str:
    return str(LOCAL[key]["separators"][0])


@pytest.mark.parametrize("key", CHATS)
def test_one_turn(key: str) -> None:
    """One question is the canonical prompt, with the default system prompt where there is one."""
    assert render(key, USER) == canonical(key, QUESTION)


@pytest.mark.parametrize("key", CHATS)
def test_system_prompt(key: str) -> None:
    """A system prompt stands where the canonical prompt has it, in place of the default; OpenAI's
    newer name for it means the same."""
    for role in ("system", "developer"):
        system = {"role": role, "content": SYSTEM}
        assert render(key, system, USER) == canonical(key, QUESTION, SYSTEM)


@pytest.mark.parametrize("key", CHATS)
def test_several_turns(key: str) -> None:
    """Earlier turns stand before the last, separated as the facts say, each as it was shown."""
    before, after = later_turn(key)
    known = LOCAL[key]
    first = canonical(key, QUESTION, SYSTEM)
    start, _, end = str(known["prompt_canonical"]).rpartition("{user}")
    assert start or key == "wizardlm-7b"
    expected = f"{first}{before}{ANSWER}{after}{AGAIN}{end}"
    assert any(separator.strip() in after for separator in known["separators"])
    assert render(key, {"role": "system", "content": SYSTEM}, *TURNS) == expected


@pytest.mark.parametrize("key", CHATS)
def test_answers_go_back_as_they_came(key: str) -> None:
    """An answer sent back with the space that it began with makes the same prompt."""
    shown = [USER, {"role": "assistant", "content": f" {ANSWER}"}, TURNS[2]]
    if LOCAL[key]["roles"][0] != "<|im_start|>user":  # ChatML's answers begin after a line break
        assert render(key, *shown) == render(key, *TURNS)


@pytest.mark.parametrize("key", [key for key in CHATS if default_system(key)])
def test_no_system_prompt(key: str) -> None:
    """An empty system message leaves out the default, and every trace of it."""
    text = render(key, {"role": "system", "content": ""}, USER)
    assert default_system(key) not in text
    assert QUESTION in text
    assert "<<SYS>>" not in text


def test_base_model() -> None:
    """Pythia, for which no form was ever published, is given questions and answers."""
    assert render("pythia-12b", USER) == f"Question: {QUESTION}\nAnswer:"
    system = {"role": "system", "content": SYSTEM}
    expected = f"{SYSTEM}\n\nQuestion: {QUESTION}\nAnswer: {ANSWER}\n\nQuestion: {AGAIN}\nAnswer:"
    assert render("pythia-12b", system, *TURNS) == expected


@pytest.mark.parametrize("key", LOCAL)
def test_what_has_no_place(key: str) -> None:
    """A system message later on, or a tool's, is refused: dropping it would change the answer."""
    for role in ("system", "tool"):
        with pytest.raises(TemplateError, match="after one system message"):
            render(key, *TURNS[:2], {"role": role, "content": "x"}, USER)


def test_turns() -> None:
    """Llama 2 was trained on strict turns, and refuses others, as its own template does."""
    with pytest.raises(TemplateError, match="in turn"):
        render("llama-2-7b-chat", USER, USER)


def test_templates_are_packaged() -> None:
    """Every template is a file of this distribution, and none is without an entry."""
    named = {
        e.settings["chat_template"] for e in entries().values() if "chat_template" in e.settings
    }
    folder = Path(checkpoint_path("package:deployments/templates"))
    assert named == {f"package:deployments/templates/{file.name}" for file in folder.iterdir()}
