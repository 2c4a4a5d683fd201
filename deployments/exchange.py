"""The one contract between the router and a backend.

A backend is given an OpenAI path and a JSON body and answers with OpenAI bytes. It knows nothing
of HTTP servers or Ray, so it can be tested, and run on a bare GPU machine, without either.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from deployments.load import Load
from deployments.progress import Report, unreported
from deployments.spans import TraceHeaders

JSON = "application/json"
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a client asked, as bytes that the guard has already found to be a strict JSON object.

    `model` is the model id that the router resolved: `body` may name it by an alias.
    `deadline_s` is the time left for the whole answer, None for no limit. `trace` is the span that
    the answer belongs to, nothing if it is not traced; `logged` whether it has a line in the log.
    """

    path: str
    body: bytes
    request_id: str
    model: str
    deadline_s: float | None = None
    trace: TraceHeaders = ()
    logged: bool = True


@dataclass(frozen=True, slots=True)
class Head:
    """How an answer begins. `headers` are what the client may see besides the content type."""

    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Tail:
    """How an answer ends: the tokens it cost. Left out where the backend cannot know."""

    prompt_tokens: int
    completion_tokens: int


Item = Head | bytes | Tail


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a backend serves: the model ids that clients may send, and the kind that answers."""

    backend: str
    models: tuple[str, ...]


class Backend(Protocol):
    """A model, or several, behind one interface.

    `exchange` yields one Head, then bytes, then at most one Tail. What goes wrong before the Head
    is raised as a `RoundhouseError`; what goes wrong after it is raised too, and the router turns
    it into an SSE error event or a broken connection, never into a clean end. Closing the
    iterator, or cancelling the task that reads it, frees the backend's slot at once.
    """

    @property
    def num_running(self) -> int:
        """Exchanges that hold a slot now, those that wait for one included."""

    def load(self) -> Load:
        """What it has in hand, for autoscaling. Returns at once."""

    async def start(self, report: Report = unreported) -> None:
        """Loads whatever is needed to answer, and tells `report` how far it is.

        Raises: StartError, with what to do about it.
        """

    def exchange(self, request: Exchange) -> AsyncGenerator[Item, None]:
        """Answers one request."""

    async def check_health(self) -> None:
        """Returns when the backend can answer. Raises: BackendUnavailable."""

    def card(self) -> ModelCard:
        """What is served; known before `start`."""

    async def stop(self) -> None:
        """Frees everything, processes included. Callable at any time, more than once."""
