"""What an answer consists of, once its tool calls have been told from its text."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from deployments.huggingface.protocol.tools.arguments import read_arguments


@dataclass(frozen=True, slots=True)
class Content:
    """Text for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Begin:
    """A call begins; its arguments follow."""

    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the arguments of the call that has begun, as the model wrote them."""

    text: str


@dataclass(frozen=True, slots=True)
class End:
    """The call that has begun ends. `raw` is all that the model wrote for it, `rest` the part of
    that after its arguments; without `well_formed` that is no call."""

    raw: str
    rest: str
    well_formed: bool


Piece = Content | Begin | Arguments | End


@dataclass(slots=True)
class Call:
    """A whole call."""

    name: str
    arguments: str = ""

    @property
    def well_formed(self) -> bool:
        """Whether the arguments are a JSON object."""
        return read_arguments(self.arguments) is not None


@dataclass(slots=True)
class Parts:
    """A whole answer. What is no well-formed call is text: nothing is lost."""

    text: str = ""
    calls: list[Call] = field(default_factory=list)


def collect(pieces: Iterable[Piece]) -> Parts:
    """The parts that the pieces of a whole answer make."""
    parts = Parts()
    call = Call("")
    for piece in pieces:
        match piece:
            case Content(text):
                parts.text += text
            case Begin(name):
                call = Call(name)
            case Arguments(text):
                call.arguments += text
            case End(raw, _, well_formed):
                if well_formed and call.well_formed:
                    parts.calls.append(call)
                else:
                    parts.text += raw
    return parts
