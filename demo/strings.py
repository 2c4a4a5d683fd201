"""The strings that copying is practised on: words, nonsense, codes, other scripts and emoji.

Most are random, because a model that has only ever repeated known words cannot repeat new ones.
"""

from random import Random

from demo.words import ACCENTED, EMOJI, JOINED_EMOJI, NAMES, SCRIPTS, WORDS

LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"
MARKS = "-_.:/#@+=!?*()[]{}<>$%&'\"~"


def nonce(rng: Random) -> str:
    """Letters and digits such as `k7x2q`, sometimes capitals, sometimes in two parts."""
    alphabet = LETTERS + DIGITS + (LETTERS.upper() if rng.random() < 0.3 else "")
    alphabet = rng.choice((alphabet, alphabet, DIGITS, LETTERS, LETTERS.upper() + DIGITS))
    text = "".join(rng.choices(alphabet, k=rng.randint(1, 12)))
    if rng.random() < 0.2:
        text += rng.choice("-_.:/") + "".join(rng.choices(alphabet, k=rng.randint(1, 5)))
    return text


def made_up(rng: Random) -> str:
    """A word nobody knows, of pieces of words: it makes every token of the vocabulary turn up."""
    pieces = []
    for _ in range(rng.randint(1, 3)):
        source = rng.choice(WORDS)
        start = rng.randrange(len(source) - 1)
        pieces.append(source[start : start + rng.randint(2, 6)])
    text = "".join(pieces)
    return text.capitalize() if rng.random() < 0.3 else text


def name(rng: Random) -> str:
    return rng.choice(NAMES) if rng.random() < 0.6 else made_up(rng).capitalize()


def word(rng: Random) -> str:
    chosen = rng.choice(WORDS) if rng.random() < 0.4 else made_up(rng)
    chosen = nonce(rng) if rng.random() < 0.2 else chosen
    return rng.choice((*ACCENTED, *NAMES)) if rng.random() < 0.08 else chosen


def words(rng: Random, num_words: int) -> list[str]:
    return [rng.choice(WORDS) if rng.random() < 0.8 else word(rng) for _ in range(num_words)]


def phrase(rng: Random, most_words: int) -> str:
    return " ".join(words(rng, rng.randint(1, most_words)))


def sentence(rng: Random) -> str:
    text = phrase(rng, 9)
    text = text.capitalize() if rng.random() < 0.5 else text
    return text + rng.choice((".", "!", "?", "", "", "..."))


def script(rng: Random) -> str:
    """One to six characters of one script, each several bytes long."""
    first, last = rng.choice(SCRIPTS)
    return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 6)))


def emoji(rng: Random) -> str:
    if rng.random() < 0.15:
        return rng.choice(JOINED_EMOJI)
    return "".join(chr(rng.randint(*rng.choice(EMOJI))) for _ in range(rng.randint(1, 4)))


def mixed(rng: Random) -> str:
    """Words, scripts, emoji and marks side by side, as real messages have them."""
    makers = (word, emoji, script, accented, nonce, marks)
    return " ".join(rng.choice(makers)(rng) for _ in range(rng.randint(2, 4)))


def accented(rng: Random) -> str:
    return rng.choice(ACCENTED)


def marks(rng: Random) -> str:
    return "".join(rng.choices(MARKS, k=rng.randint(1, 4)))


def anything(rng: Random) -> str:
    """What may follow `Repeat:`."""
    makers = (word, nonce, sentence, script, emoji, mixed, made_up, accented)
    return rng.choices(makers, (20, 20, 15, 10, 12, 13, 7, 3))[0](rng)
