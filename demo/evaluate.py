"""Scores the demo model on held-out conversations: exact match of greedy answers, per task.

`python -m demo.evaluate` loads demo/model as float32, prints a table, writes demo/accuracy.json.
"""

import argparse
import json
from pathlib import Path
from random import Random

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from demo.text import TASK_SHARES, Conversation, Message, conversation

HERE = Path(__file__).parent
BATCH_SIZE = 32
MAX_NEW_TOKENS = 270


def held_out(num_each: int, seed: int = 1) -> list[Conversation]:
    """The same number of held-out conversations of every task."""
    rng = Random(seed)
    return [conversation(task, rng, True) for task in TASK_SHARES for _ in range(num_each)]


def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, chats: list[list[Message]]
) -> list[str]:
    """The greedy answer to each chat, in one left-padded batch."""
    prompts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(
        prompts,
        add_special_tokens=False,
        return_tensors="pt",
        padding=True,
        padding_side="left",
        return_token_type_ids=False,
    )
    with torch.inference_mode():
        output = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    new = output[:, inputs["input_ids"].shape[1] :]
    return list(tokenizer.batch_decode(new, skip_special_tokens=True))


def score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, talks: list[Conversation]
) -> dict[str, float]:
    """The share of exactly right last answers, per task."""
    right: dict[str, list[bool]] = {}
    for start in range(0, len(talks), BATCH_SIZE):
        batch = talks[start : start + BATCH_SIZE]
        chats = [talk.messages[:-1] for talk in batch]
        for talk, answer in zip(batch, answers(model, tokenizer, chats), strict=True):
            right.setdefault(talk.task, []).append(answer == talk.messages[-1]["content"])
    return {task: sum(hits) / len(hits) for task, hits in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=200, help="conversations per task")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(HERE / "model")
    model = AutoModelForCausalLM.from_pretrained(HERE / "model", dtype=torch.float32)
    shares = score(model, tokenizer, held_out(options.each, options.seed))
    for task, share in shares.items():
        print(f"| {task:14} | {share:6.1%} |")
    (HERE / "accuracy.json").write_text(json.dumps(shares, indent=2) + "\n")


if __name__ == "__main__":
    main()
