"""The work that every contender does: 32 requests of mixed prompt and answer length.

Answers are 8 to 149 tokens long, evenly spread, in a fixed shuffled order: long ones keep a static
batch, and short ones leave it early. Every answer has exactly its length: no token ends it.
"""

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from demo.checkpoint import MODEL_DIR

NUM_REQUESTS = 32
FEWEST_TOKENS, MOST_TOKENS = 8, 149
FEWEST_WORDS, MOST_WORDS = 4, 80
WORDS = ("the", "river", "runs", "past", "a", "small", "house", "where", "an", "old", "lantern")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    prompt: str
    num_tokens: int


def requests() -> list[Asked]:
    """The same 32 at every call."""
    order = random.Random(3)
    span = MOST_TOKENS - FEWEST_TOKENS
    lengths = [FEWEST_TOKENS + span * n // (NUM_REQUESTS - 1) for n in range(NUM_REQUESTS)]
    order.shuffle(lengths)
    sizes = [order.randint(FEWEST_WORDS, MOST_WORDS) for _ in lengths]
    prompts = [" ".join(order.choices(WORDS, k=size)) for size in sizes]
    return [Asked(*pair) for pair in zip(prompts, lengths, strict=True)]


def endless_checkpoint(folder: Path) -> Path:
    """The demo model in `folder`, without a token that ends an answer."""
    shutil.copytree(MODEL_DIR, folder)
    for name in ("config.json", "generation_config.json"):
        file = folder / name
        settings = json.loads(file.read_text())
        file.write_text(json.dumps({k: v for k, v in settings.items() if k != "eos_token_id"}))
    return folder
