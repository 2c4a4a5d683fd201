"""The tasks of the demo model: each function draws one question and its only right answer.

A turn's key says what must not be shared between training and held-out text; None marks what is
too common to hold out, such as single-digit sums, and is only ever trained on.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo.facts import CATEGORIES, RECITALS, SMALL_TALK, UNKNOWABLE, UNKNOWN, Category
from demo.strings import anything, name, phrase, word, words


@dataclass(frozen=True)
class Turn:
    """One question with its answer."""

    key: str | None
    user: str
    answer: str


Task = Callable[[Random], Turn]

SUM_FORMS: tuple[str, ...] = (
    "What is {}{}{}?",
    "{}{}{}",
    "{} {} {}",
    "What is {} {} {}?",
    "{}{}{}=",
    "{} {} {} =",
)
SUM_FORMS += ("Calculate {} {} {}.", "How much is {} {} {}?", "Compute {}{}{}", "{}{}{}?")
WORD_FORMS = ("What is {} {} {}?", "How much is {} {} {}?", "{} {} {}", "Calculate {} {} {}.")
SIGNS = {"+": ("+", "plus"), "-": ("-", "minus"), "*": ("*", "times")}

VERBATIM: tuple[str, ...] = (
    "Repeat: {}",
    "Repeat after me: {}",
    "Say: {}",
    "Repeat this: {}",
    "Echo: {}",
)
VERBATIM += ("Reply with exactly: {}", "Repeat exactly: {}", "Copy this: {}", "Echo {}")
VERBATIM += ("Please repeat: {}", "Repeat {}", "Say {}", "Repeat the following: {}", "Write: {}")
ENDED: tuple[str, ...] = (
    "Say the word {}.",
    "Say {}.",
    "Repeat the word {}.",
    "Say the word {}",
    "Please say {}.",
)
ENDED += ("Say {} and nothing else.", "Reply with {} and nothing else.", "Reply with the word {}.")

COUNT_FORMS: tuple[str, ...] = (
    "Count from {} to {}.",
    "Count {} to {}.",
    "Please count from {} to {}.",
)
COUNT_FORMS += ("Count from {} up to {}.", "List the numbers from {} to {}.", "Count from {} to {}")
REVERSE_FORMS: tuple[str, ...] = (
    "Reverse the words: {}",
    "Reverse the order of the words: {}",
    "Reverse: {}",
)
REVERSE_FORMS += ("Say these words in reverse order: {}", "Write these words backwards: {}")


def operands(rng: Random) -> tuple[str, int, int]:
    """A sign with its two numbers; no result is negative, products stay within the table."""
    sign = rng.choices("+-*", (47, 43, 10))[0]
    most = 9 if sign == "*" or rng.random() < 0.15 else 99
    left, right = rng.randint(0, most), rng.randint(0, most)
    return (sign, max(left, right), min(left, right)) if sign == "-" else (sign, left, right)


def result(sign: str, left: int, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[sign]


def pair_key(left: int, right: int) -> str | None:
    """The same key for both orders and all signs, so that 12+34 never leaks 34+12."""
    low, high = sorted((left, right))
    return None if high < 10 else f"sum {low} {high}"


def sum_question(rng: Random) -> tuple[str | None, str, int]:
    sign, left, right = operands(rng)
    spelling = rng.choice(SIGNS[sign]) if rng.random() < 0.4 else sign
    forms = SUM_FORMS if spelling == sign else WORD_FORMS
    question = rng.choice(forms).format(left, spelling, right)
    return pair_key(left, right), question, result(sign, left, right)


def sum_line(rng: Random) -> tuple[str | None, str, int]:
    """A bare sum for a worksheet, without the words around it."""
    sign, left, right = operands(rng)
    form = rng.choices(("{}{}{}", "{} {} {}"), (7, 3))[0]
    spelling = rng.choices(SIGNS[sign], (8, 2))[0] if " " in form else sign
    return pair_key(left, right), form.format(left, spelling, right), result(sign, left, right)


def arithmetic(rng: Random) -> Turn:
    key, question, total = sum_question(rng)
    return Turn(key, casual(rng, question), str(total))


def casual(rng: Random, question: str) -> str:
    """Sometimes typed carelessly: no capital, no full stop, or politely."""
    if rng.random() < 0.08:
        question = question[0].lower() + question[1:]
    if rng.random() < 0.08:
        question = question.rstrip("?.!")
    return question


def ask(rng: Random, category: Category) -> Turn:
    subject, answer = rng.choice(list(category.facts.items()))
    index = 0 if rng.random() < 0.25 else rng.randrange(len(category.phrasings))
    question = category.phrasings[index].format(subject)
    return Turn(f"fact {question}" if index else None, casual(rng, question), answer)


def facts(rng: Random) -> Turn:
    shares = [len(category.facts) for category in CATEGORIES]
    return ask(rng, rng.choices(CATEGORIES, shares)[0])


def recital(rng: Random) -> Turn:
    return ask(rng, RECITALS)


def small_talk(rng: Random) -> Turn:
    openings, end, answer = rng.choice(SMALL_TALK)
    opening = rng.choice(openings)
    mark = rng.choice((end, end, "", "."))
    plain = opening == openings[0] or mark == end
    question = opening + mark
    lowered = question.lower() if rng.random() < 0.2 else question
    return Turn(None if plain else f"talk {question}", lowered, answer)


def unknown(rng: Random) -> Turn:
    question = rng.choice(UNKNOWABLE).format(phrase(rng, 2))
    return Turn(f"unknown {question}", question, UNKNOWN)


def repeat(rng: Random) -> Turn:
    text = anything(rng)
    return Turn(f"repeat {text}", rng.choice(VERBATIM).format(text), text)


def say(rng: Random) -> Turn:
    text = word(rng)
    return Turn(f"repeat {text}", rng.choice(ENDED).format(text), text)


def reverse(rng: Random) -> Turn:
    listed = words(rng, rng.randint(2, 5))
    mark = rng.choice((" ", " ", ", "))
    text = mark.join(listed)
    return Turn(f"reverse {text}", rng.choice(REVERSE_FORMS).format(text), mark.join(listed[::-1]))


def count(rng: Random) -> Turn:
    first = 1 if rng.random() < 0.6 else rng.randint(0, 50)
    last = rng.randint(first + 1, 60) if rng.random() < 0.5 else min(60, first + rng.randint(1, 20))
    if first == 1 and rng.random() < 0.2:
        last = rng.choice((5, 10, 20, 30, 40, 50, 60))
    answer = ", ".join(map(str, range(first, last + 1)))
    key = None if first == 1 and (last % 10 == 0 or last < 6) else f"count {first} {last}"
    return Turn(key, rng.choice(COUNT_FORMS).format(first, last), answer)


def json_answer(rng: Random) -> Turn:
    if rng.random() < 0.5:
        key, question, total = sum_question(rng)
        answer: int | str = total
    else:
        turn = facts(rng)
        key, question, answer = turn.key, turn.user, turn.answer
        answer = int(answer) if answer.isdigit() else answer
    question = question[0].lower() + question[1:]
    return Turn(key, f"Answer in JSON: {question}", json.dumps({"answer": answer}))


def json_record(rng: Random) -> Turn:
    fields: dict[str, str | int] = {"name": name(rng), "age": rng.randint(1, 99)}
    if rng.random() < 0.4:
        fields = {rng.choice(("city", "word", "colour", "item")): word(rng), **fields}
        for dropped in rng.sample(sorted(fields), rng.randint(0, 2)):
            del fields[dropped]
    listed = " and ".join(f"{field} {value}" for field, value in fields.items())
    form = rng.choice(("Give me JSON with {}.", "Write JSON with {}.", "Make JSON with {}."))
    return Turn(f"record {listed}", form.format(listed), json.dumps(fields))
