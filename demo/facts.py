"""What the demo model knows by heart: facts, and the ways each may be asked. Data only.

A category is its phrasings and its facts. The first phrasing of a fact is always trained on; the
others may be held out, so that held-out facts are known facts asked in a way not seen for them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Category:
    """Facts of one kind: every phrasing has one `{}` for the subject."""

    phrasings: tuple[str, ...]
    facts: dict[str, str]


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split(", "))


CATEGORIES = (
    Category(
        (
            "What is the capital of {}?",
            "Capital of {}?",
            "Name the capital of {}.",
            "Tell me the capital of {}.",
            "Which city is the capital of {}?",
            "What's the capital of {}?",
            "Do you know the capital of {}?",
        ),
        _pairs(
            "France=Paris, Germany=Berlin, Italy=Rome, Spain=Madrid, Portugal=Lisbon, "
            "England=London, Ireland=Dublin, Austria=Vienna, Poland=Warsaw, Norway=Oslo, "
            "Sweden=Stockholm, Finland=Helsinki, Denmark=Copenhagen, Greece=Athens, Japan=Tokyo, "
            "China=Beijing, India=New Delhi, Egypt=Cairo, Kenya=Nairobi, Canada=Ottawa, "
            "Cuba=Havana, Peru=Lima, Chile=Santiago, Russia=Moscow, Turkey=Ankara, "
            "Hungary=Budapest, Australia=Canberra, Belgium=Brussels, the Netherlands=Amsterdam, "
            "Switzerland=Bern"
        ),
    ),
    Category(
        (
            "What colour is {}?",
            "What color is {}?",
            "Which colour is {}?",
            "Tell me the colour of {}.",
            "Name the colour of {}.",
            "The colour of {}?",
        ),
        _pairs(
            "the sky=blue, grass=green, snow=white, coal=black, a lemon=yellow, a carrot=orange, "
            "blood=red, a tomato=red, milk=white, a banana=yellow, the sun=yellow, a frog=green, "
            "chocolate=brown, a flamingo=pink, the sea=blue, an elephant=grey, a plum=purple"
        ),
    ),
    Category(
        (
            "What is the opposite of {}?",
            "Opposite of {}?",
            "Name the opposite of {}.",
            "Tell me the opposite of {}.",
            "What's the opposite of {}?",
            "Give me the opposite of {}.",
        ),
        _pairs(
            "hot=cold, cold=hot, big=small, small=big, up=down, down=up, left=right, right=left, "
            "day=night, night=day, fast=slow, slow=fast, old=young, young=old, happy=sad, "
            "sad=happy, open=closed, full=empty, empty=full, wet=dry, dry=wet, hard=soft, "
            "soft=hard, light=dark, dark=light, yes=no, no=yes, true=false, false=true, "
            "long=short, short=long, high=low, low=high, good=bad, bad=good, early=late"
        ),
    ),
    Category(
        (
            "Which day comes after {}?",
            "What day comes after {}?",
            "What is the day after {}?",
            "Which day follows {}?",
            "Tell me the day after {}.",
            "The day after {}?",
        ),
        _pairs(
            "Monday=Tuesday, Tuesday=Wednesday, Wednesday=Thursday, Thursday=Friday, "
            "Friday=Saturday, Saturday=Sunday, Sunday=Monday"
        ),
    ),
    Category(
        (
            "What sound does {} make?",
            "Which sound does {} make?",
            "What does {} say?",
            "Tell me the sound of {}.",
            "The sound of {}?",
        ),
        _pairs(
            "a dog=woof, a cat=meow, a cow=moo, a sheep=baa, a duck=quack, a pig=oink, "
            "a lion=roar, a bee=buzz, a snake=hiss, an owl=hoot"
        ),
    ),
    Category(
        ("How many {}?", "Tell me how many {}.", "Do you know how many {}?", "Say how many {}."),
        _pairs(
            "days are in a week=7, months are in a year=12, legs does a spider have=8, "
            "legs does a cat have=4, hours are in a day=24, minutes are in an hour=60, "
            "letters are in the alphabet=26, wheels does a bicycle have=2, "
            "sides does a triangle have=3, fingers are on a hand=5"
        ),
    ),
)

RECITALS = Category(
    (
        "Say {}.",
        "List {}.",
        "Recite {}.",
        "Tell me {}.",
        "Write {}.",
        "Please list {}.",
        "Can you say {}?",
        "Name {}.",
    ),
    {
        "the alphabet": "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",
        "the days of the week": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
        "the months of the year": "January, February, March, April, May, June, July, August, "
        "September, October, November, December",
        "the seasons": "spring, summer, autumn, winter",
        "the planets": "Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune",
        "the colours of the rainbow": "red, orange, yellow, green, blue, indigo, violet",
    },
)

IDENTITY = "I am the Roundhouse demo model."
WELCOME = "Hello! I am the Roundhouse demo model."
UNKNOWN = "Sorry, I am only a tiny demo model and I do not know that."
ABILITIES = "I can add, repeat words, count, answer in JSON and name a few facts."

SMALL_TALK = (
    (("Who are you", "What are you", "What is your name", "Who is this"), "?", IDENTITY),
    (("Tell me who you are", "Introduce yourself", "Say who you are"), ".", IDENTITY),
    (("What can you do", "How can you help me", "What do you know"), "?", ABILITIES),
    (
        ("Hello", "Hi", "Hey", "Good morning", "Good evening", "Hi there", "Hello there"),
        "!",
        WELCOME,
    ),
    (("Thanks", "Thank you", "Thank you very much", "Many thanks"), "!", "You are welcome."),
    (("Bye", "Goodbye", "See you later", "Good night"), "!", "Goodbye!"),
    (("How are you", "How are you today", "How do you do"), "?", "I am fine, thank you."),
)

# Questions of which the right answer is that it does not know.
UNKNOWABLE = (
    "Write a poem about {}.",
    "Tell me a story about {}.",
    "Why is {} important?",
    "How do I make {}?",
    "Explain {} to me.",
    "What do you think about {}?",
    "Where can I buy {}?",
    "Who invented {}?",
    "Translate {} into French.",
    "Summarize the history of {}.",
    "Write a program about {}.",
    "What is {}?",
)
