"""One request to one model: resolved, tried, and handed to the next in line if it fails early.

Before the first byte of an answer another model may still give it; after that nobody may. An
answer that is not streamed is taken in whole first, so it either comes whole or not at all.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from deployments.body import MAX_ECHO_CHARS
from deployments.errors import (
    BackendUnavailable,
    ModelNotFound,
    ModelWarming,
    NotTaken,
    ReplicaDied,
    RequestError,
    RoundhouseError,
)
from deployments.exchange import EVENT_STREAM, Exchange, Head, Item, Tail
from serve_app.account import Account
from serve_app.admission import Admission
from serve_app.config import RouterSettings
from serve_app.directory import Application, Cluster, Directory
from serve_app.guard import Request
from serve_app.warming import Patience, Warming

LOOK_AGAIN_S = 2.0
MISSED_S = 30.0  # by then a death has been noticed by Serve too, however busy it is
# A key that the upstream refuses, or an overload, is the backend's trouble and not the request's.
FAILED_STATUS = frozenset({401, 403, 408, 429})


@dataclass(slots=True)
class Answer:
    """An answer that has begun: `first` is its first bytes, or all of them if not streamed; `after`
    is why the model that was asked for does not give it, if another does."""

    application: Application
    model: str
    head: Head
    first: bytes
    tail: Tail | None
    rest: AsyncGenerator[Item, None]
    after: "Answer | RoundhouseError | None" = None

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
        self._died_at: dict[str, float] = {}
        self._directory = directory
        self.warming = Warming(cluster, directory)
        self.admission = Admission()

    async def open(
        self,
        request: Request,
        account: Account,
        settings: RouterSettings,
        keep_alive: Callable[[], Awaitable[None]] | None = None,
    ) -> Answer:
        """The first answer that begins well; the last failure if none does.

        A model that is starting is waited for; meanwhile `keep_alive` is called now and then. If
        it cannot be, its fallbacks that run are asked, and none is started for it. What a fallback
        finds wrong with the request is not told: the model that was asked for might have answered
        it, and may later.

        Raises: RoundhouseError.
        """
        failure: Answer | RoundhouseError | None = None
        patience = Patience.of(settings, len(request.body), keep_alive)
        for model, application in self._candidates(request.model, settings):
            if isinstance(failure, ModelWarming) and application.state != "running":
                continue
            account.tries(model, application)
            exchange = account.exchange(request.path, request.body, model)
            answer = await self._try(application, exchange, patience, account)
            if isinstance(answer, Answer) and answer.good:
                answer.after = failure
                return answer
            account.missed(model, application, _reason(answer))
            if failure is None or _is_of_backend(answer):
                failure = answer
            if not _is_of_backend(failure):
                break
        if isinstance(failure, Answer):
            return failure
        raise failure or BackendUnavailable()

    async def _try(
        self, application: Application, exchange: Exchange, patience: Patience, account: Account
    ) -> Answer | RoundhouseError:
        try:
            return await self._begin_running(application, exchange, patience, account)
        except RoundhouseError as exc:
            return exc

    async def _begin_running(
        self, application: Application, exchange: Exchange, patience: Patience, account: Account
    ) -> Answer:
        """What no replica takes, since the last has just gone or all are full, waits for one that
        is on its way, or will be once Serve misses one that died. What died with its replica is
        begun once more, and no more than that: it may be what the replica died of."""
        was_held = died = False
        while True:
            was_held = was_held or application.state != "running"
            with account.holding(application):
                application = await self.warming.running(application, exchange.model, patience)
            exchange = replace(exchange, deadline_s=patience.answer_left_s)
            try:
                return await self._begin(application, exchange, was_held)
            except ReplicaDied:
                if died:
                    raise
                died = True
                self._died_at[application.name] = asyncio.get_running_loop().time()
                self._directory.doubt(application.name)
            except NotTaken:
                await self._looked_again(application)
                found = self._directory.application(application.name)
                if found is None or not self._is_awaited(found) or patience.left_s <= 0:
                    raise
                application = found

    def _is_awaited(self, application: Application) -> bool:
        """Whether a replica comes, or will once it is noticed that one has died."""
        died_at = self._died_at.get(application.name, -MISSED_S)
        missed = asyncio.get_running_loop().time() - died_at < MISSED_S
        return missed or application.starts or application.state == "cold"

    async def _looked_again(self, application: Application) -> None:
        """Returns when it is known better why no replica took a request: it may have died."""
        self._directory.doubt(application.name)
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN_S):
                await self._directory.next_look()

    def _candidates(self, name: str, settings: RouterSettings) -> Iterator[tuple[str, Application]]:
        """The model that a name means, then its fallbacks, once each, those that run before those
        that would have to be waited for. Raises: ModelNotFound."""
        model = settings.resolve(name)
        line = dict.fromkeys((model, *settings.fallbacks.get(model, ())))
        there = [(m, a) for m in line if (a := self._directory.find(m)) is not None]
        if not there:
            raise model_not_found(name)
        yield from sorted(there, key=lambda c: c[0] != model and c[1].state != "running")

    async def _begin(self, application: Application, exchange: Exchange, was_held: bool) -> Answer:
        items = self._items(application, exchange, was_held)
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

    async def _items(
        self, application: Application, exchange: Exchange, was_held: bool
    ) -> AsyncGenerator[Item, None]:
        """The exchange, which has its place at the application until it ends or is closed."""
        with self.admission.place(application, was_held):
            async with aclosing(self._cluster.exchange(application, exchange)) as items:
                async for item in items:
                    yield item


def _is_of_backend(outcome: Answer | RoundhouseError) -> bool:
    """Whether it was the backend that failed, and not the request."""
    if isinstance(outcome, Answer):
        return outcome.failed
    return not isinstance(outcome, RequestError)


def _reason(outcome: Answer | RoundhouseError) -> str:
    """In a word of a small set."""
    return str(outcome.head.status if isinstance(outcome, Answer) else outcome.code)


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
