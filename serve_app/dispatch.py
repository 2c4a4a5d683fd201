"""One request to one model: resolved, tried, and handed to the next in line if it fails early.

Before the first byte of an answer another model may still give it; after that nobody may. An
answer that is not streamed is taken in whole first, so it either comes whole or not at all.
"""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from deployments.body import MAX_ECHO_CHARS
from deployments.errors import (
    BackendUnavailable,
    ModelNotFound,
    ModelWarming,
    RequestError,
    RoundhouseError,
)
from deployments.exchange import EVENT_STREAM, Exchange, Head, Item, Tail
from serve_app.config import RouterSettings
from serve_app.directory import Application, Cluster, Directory
from serve_app.guard import Request

WARMING_RETRY_S = 5.0
FAILED_RETRY_S = 60.0  # it takes an operator to mend it
# A key that the upstream refuses, or an overload, is the backend's trouble and not the request's.
FAILED_STATUS = frozenset({401, 403, 408, 429})


@dataclass(slots=True)
class Answer:
    """An answer that has begun: `first` is its first bytes, or all of them if not streamed."""

    application: Application
    model: str
    head: Head
    first: bytes
    tail: Tail | None
    rest: AsyncGenerator[Item, None]

    @property
    def streamed(self) -> bool:
        return self.head.content_type.startswith(EVENT_STREAM)

    @property
    def good(self) -> bool:
        """Whether it is an answer, and not an error."""
        return self.head.status < 400

    @property
    def failed(self) -> bool:
        """Whether another backend might do better: an upstream's own error answer."""
        return self.head.status >= 500 or self.head.status in FAILED_STATUS


class Dispatch:
    """Finds who answers a request."""

    def __init__(self, cluster: Cluster, directory: Directory) -> None:
        self._cluster = cluster
        self._directory = directory

    async def open(self, request: Request, request_id: str, settings: RouterSettings) -> Answer:
        """The first answer that begins well; the last failure if none does.

        What a fallback finds wrong with the request is not told: the model that was asked for
        might have answered it, and may later.

        Raises: RoundhouseError.
        """
        failure: Answer | RoundhouseError | None = None
        for model, application in self._candidates(request.model, settings):
            exchange = Exchange(
                request.path, request.body, request_id, model, settings.request_timeout_s
            )
            answer = await self._try(application, exchange)
            if isinstance(answer, Answer) and answer.good:
                return answer
            if failure is None or _is_of_backend(answer):
                failure = answer
            if not _is_of_backend(failure):
                break
        if isinstance(failure, Answer):
            return failure
        raise failure or BackendUnavailable()

    async def _try(self, application: Application, exchange: Exchange) -> Answer | RoundhouseError:
        try:
            return await self._begin(application, exchange)
        except RoundhouseError as exc:
            return exc

    def _candidates(self, name: str, settings: RouterSettings) -> Iterator[tuple[str, Application]]:
        """The model that a name means, then its fallbacks, once each. Raises: ModelNotFound."""
        model = settings.resolve(name)
        line = dict.fromkeys((model, *settings.fallbacks.get(model, ())))
        there = [(m, a) for m in line if (a := self._directory.find(m)) is not None]
        if not there:
            raise model_not_found(name)
        yield from there

    async def _begin(self, application: Application, exchange: Exchange) -> Answer:
        _check_state(application, exchange.model)
        items = self._cluster.exchange(application, exchange)
        try:
            head = await anext(items, None)
            if not isinstance(head, Head):
                raise BackendUnavailable("The model ended without an answer.", retry_after_s=1)
            answer = Answer(application, exchange.model, head, b"", None, items)
            await _read_first(answer)
        except BaseException:
            await items.aclose()
            raise
        return answer


def _is_of_backend(outcome: Answer | RoundhouseError) -> bool:
    """Whether it was the backend that failed, and not the request."""
    if isinstance(outcome, Answer):
        return outcome.failed
    return not isinstance(outcome, RequestError)


def model_not_found(name: str) -> ModelNotFound:
    """The same for every name that is not there, whatever it looks like."""
    shown = name[:MAX_ECHO_CHARS]
    message = f"The model '{shown}' does not exist or you do not have access to it."
    return ModelNotFound(message, param="model")


async def _read_first(answer: Answer) -> None:
    """Reads what must be there before the client is answered: see `Answer.first`. A failed answer
    is read to its end, since another may take its place."""
    pieces: list[bytes] = []
    async for item in answer.rest:
        if isinstance(item, Tail):
            answer.tail = item
        elif isinstance(item, bytes):
            pieces.append(item)
            if answer.streamed and not answer.failed:
                break
    answer.first = b"".join(pieces)


def _check_state(application: Application, model: str) -> None:
    if application.state == "failed":
        raise BackendUnavailable(
            f"The model '{model}' failed to start.", retry_after_s=FAILED_RETRY_S
        )
    if application.state == "warming":
        raise ModelWarming(f"The model '{model}' is starting.", retry_after_s=WARMING_RETRY_S)
