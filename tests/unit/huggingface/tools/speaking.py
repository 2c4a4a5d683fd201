"""Tiny checkpoints with chat templates that render tools: one says a text, one says noise."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from tests import tiny_models

from ..models import EOS, VOCAB_SIZE, byte_tokenizer

NUM_POSITIONS = 640
LIST_TOOLS = "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}"
TURNS = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}"
    "{% if m.tool_calls %}{% for c in m.tool_calls %}"
    "<call>{{ c.function.name }} {{ c.function.arguments.x }}</call>"
    "{% endfor %}{% endif %}{% if m.tool_call_id %}#{{ m.tool_call_id }} {{ m.name }}{% endif %}; "
    "{% endfor %}"
    "{% if add_generation_prompt %}>{% endif %}"
)
HERMES = LIST_TOOLS + "{# <tool_call> #}" + TURNS
LLAMA3 = LIST_TOOLS + '{# ipython {"name": ..., "parameters": ...} #}' + TURNS
MISTRAL = LIST_TOOLS + "{# [TOOL_CALLS] #}" + TURNS


def tokenizer(template: str, *special: str) -> PreTrainedTokenizerFast:
    """The byte tokenizer with a chat template and special tokens of its own."""
    made = byte_tokenizer()
    made.chat_template = template
    made.add_special_tokens({"additional_special_tokens": list(special)})
    assert len(made) <= VOCAB_SIZE
    return made


def prompt_ids(made: PreTrainedTokenizerFast, body: dict[str, Any]) -> list[int]:
    """The prompt of a chat."""
    options = {"add_generation_prompt": True, "tokenize": False}
    text = made.apply_chat_template(body["messages"], tools=body["tools"], **options)
    return list(made(text)["input_ids"])


def save_speaker(
    folder: Path, made: PreTrainedTokenizerFast, body: dict[str, Any], answer: str
) -> Path:
    """A GPT-2 that says `answer` to one chat: it goes by the position alone."""
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB_SIZE,
            n_positions=NUM_POSITIONS,
            n_embd=NUM_POSITIONS,
            n_layer=1,
            n_head=1,
            n_inner=8,
            tie_word_embeddings=False,
            eos_token_id=EOS,
            bos_token_id=None,
        )
    )
    start = len(prompt_ids(made, body)) - 1
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.wpe.weight.copy_(torch.eye(NUM_POSITIONS))
        model.transformer.ln_f.weight.fill_(1)
        for step, token in enumerate([*made(answer)["input_ids"], EOS]):
            model.lm_head.weight[token, start + step] = 1
    return tiny_models.save(model, made, folder)


def save_noise(folder: Path, made: PreTrainedTokenizerFast) -> Path:
    """A Llama with random weights."""
    fields = {"vocab_size": VOCAB_SIZE, "max_position_embeddings": 1024, "eos_token_id": EOS}
    fields |= {"num_hidden_layers": 1, "initializer_range": 0.4, "bos_token_id": None}
    model = tiny_models.random_model("llama", **tiny_models.SMALL | fields)
    return tiny_models.save(model, made, folder)


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    """A tool that takes these parameters, all of them."""
    schema = {"type": "object", "properties": parameters, "required": list(parameters)}
    function = {"name": name, "parameters": schema | {"additionalProperties": False}}
    return {"type": "function", "function": function}


def hermes_call(name: str, arguments: dict[str, Any]) -> str:
    """A call as Qwen writes it."""
    body = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{body}\n</tool_call>"
