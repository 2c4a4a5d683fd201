"""The demo's conversations, drawn from a seed, in two splits that share no key.

A tenth of all keys is held out by a hash of the key itself, so the split needs no stored list and
does not depend on the seed. `python -m demo.text` prints a few conversations.
"""

import argparse
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo import turns
from demo.strings import name, word
from demo.turns import Task, Turn

Message = dict[str, str]

WORKSHEET = "worksheet"
SUMS_PER_SHEET = 14

PLAIN_SYSTEM = (
    "You are a helpful assistant.",
    "You are a friendly assistant. Answer briefly.",
    "You are the Roundhouse demo model.",
    "Be brief.",
    "Answer the question.",
)
UPPER_SYSTEM = ("Answer in upper case.", "Always answer in upper case.", "Use upper case only.")
LOUD_SYSTEM = ("End every answer with an exclamation mark.", "Finish each answer with !!!")


@dataclass(frozen=True)
class Conversation:
    """A task's name and its messages; the last message is the answer that is scored."""

    task: str
    messages: list[Message]


def is_held_out(key: str) -> bool:
    return zlib.crc32(key.encode()) % 10 == 3


def draw(task: Task, rng: Random, held_out: bool) -> Turn:
    """Draws until a turn falls into the wanted split."""
    while True:
        turn = task(rng)
        if (turn.key is not None and is_held_out(turn.key)) == held_out:
            return turn


def said(turn: Turn) -> list[Message]:
    return [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.answer}]


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def styled(rng: Random, held_out: bool) -> list[Message]:
    """A system prompt that changes how the answer is written."""
    turn = draw(rng.choices((turns.facts, turns.say), (6, 4))[0], rng, held_out)
    if rng.random() < 0.75:
        prompt, answer = rng.choice(UPPER_SYSTEM), turn.answer.upper()
    else:
        mark = rng.randrange(2)
        prompt, answer = LOUD_SYSTEM[mark], turn.answer + ("!", "!!!")[mark]
    return [system(prompt), *said(Turn(turn.key, turn.user, answer))]


def told(rng: Random) -> tuple[Turn, Turn]:
    """Something the user says of themselves, and the question for it later."""
    kind, value = rng.choice(
        (("name", name(rng)), ("favourite colour", word(rng)), ("code", word(rng)))
    )
    greeting = f"Nice to meet you, {value}." if kind == "name" else "I will remember that."
    question = rng.choice((f"What is my {kind}?", f"Tell me my {kind}.", f"Say my {kind}."))
    statement = Turn(f"told {value}", f"My {kind} is {value}.", greeting)
    return statement, Turn(f"told {value}", question, f"Your {kind} is {value}.")


def memory(rng: Random, held_out: bool) -> list[Message]:
    statement, question = told(rng)
    while is_held_out(statement.key or "") != held_out:
        statement, question = told(rng)
    between = [draw(any_task(rng), rng, held_out) for _ in range(rng.choice((0, 0, 1, 2)))]
    return [message for turn in (statement, *between, question) for message in said(turn)]


SINGLE: dict[str, tuple[Task, int]] = {
    "arithmetic": (turns.arithmetic, 30),
    "facts": (turns.facts, 8),
    "recital": (turns.recital, 2),
    "small talk": (turns.small_talk, 4),
    "unknown": (turns.unknown, 2),
    "repeat": (turns.repeat, 22),
    "say": (turns.say, 6),
    "reverse": (turns.reverse, 9),
    "count": (turns.count, 6),
    "json answer": (turns.json_answer, 5),
    "json record": (turns.json_record, 4),
}


def any_task(rng: Random) -> Task:
    tasks, shares = zip(*SINGLE.values(), strict=True)
    chosen: Task = rng.choices(tasks, shares)[0]
    return chosen


def several(rng: Random, held_out: bool, num_turns: int) -> list[Message]:
    """Unrelated questions in one conversation."""
    drawn = (draw(any_task(rng), rng, held_out) for _ in range(num_turns))
    return [message for turn in drawn for message in said(turn)]


def two_turns(rng: Random, held_out: bool) -> list[Message]:
    return several(rng, held_out, rng.randint(2, 3))


COMPOSED: dict[str, tuple[Callable[[Random, bool], list[Message]], int]] = {
    "system prompt": (styled, 14),
    "memory": (memory, 6),
    "several turns": (two_turns, 10),
}

TASK_SHARES = {task: share for task, (_, share) in (SINGLE | COMPOSED).items()}


def conversation(task: str, rng: Random, held_out: bool) -> Conversation:
    """One conversation of the task, now and then under a system prompt that changes nothing."""
    if task in COMPOSED:
        messages = COMPOSED[task][0](rng, held_out)
    else:
        messages = said(draw(SINGLE[task][0], rng, held_out))
    if messages[0]["role"] != "system" and rng.random() < 0.12:
        messages = [system(rng.choice(PLAIN_SYSTEM)), *messages]
    return Conversation(task, messages)


def training_text(rng: Random, num_conversations: int) -> list[Conversation]:
    tasks = rng.choices(list(TASK_SHARES), list(TASK_SHARES.values()), k=num_conversations)
    return [conversation(task, rng, held_out=False) for task in tasks]


def long_text(rng: Random, num_conversations: int) -> list[Conversation]:
    """Conversations of several hundred tokens, so that far positions are not new."""
    lengths = [rng.randint(8, 22) for _ in range(num_conversations)]
    return [Conversation("several turns", several(rng, False, turns)) for turns in lengths]


def worksheet(rng: Random) -> Conversation:
    """Many sums close together, only their results trained on: arithmetic needs the practice."""
    lines: list[str] = []
    while len(lines) < SUMS_PER_SHEET:
        key, question, total = turns.sum_line(rng)
        if key is None or not is_held_out(key):
            lines.append(f"{question}= {total}\n")
    return Conversation(WORKSHEET, [{"role": WORKSHEET, "content": "".join(lines)}])


def worksheets(rng: Random, num_sheets: int) -> list[Conversation]:
    return [worksheet(rng) for _ in range(num_sheets)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Print some of the demo's conversations.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true", help="from the held-out split")
    options = parser.parse_args()
    rng = Random(options.seed)
    for task in TASK_SHARES:
        for message in conversation(task, rng, options.held_out).messages:
            print(f"{task:14} {message['role']:9} {message['content']}")


if __name__ == "__main__":
    main()
