"""Which model applications there are, and in what state: the router's view of the cluster.

It is refreshed by polling, about once a second, so there is no list to keep in step with what is
deployed. It does not open exchanges.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from deployments.errors import BackendError, BackendUnavailable
from deployments.exchange import Exchange, Item, ModelCard
from deployments.progress import Progress

logger = logging.getLogger("roundhouse")

State = Literal["running", "warming", "cold", "failed"]
REFRESH_PERIOD_S = 1.0
FIRST_LOOK_S = 5.0
# Of these a controller that has just come back has yet to hear.
RECOVERING = "RECOVERING"
STARTING_REPLICAS = ("STARTING", "UPDATING", RECOVERING)
# The second are those of a node that is being drained: they answer until others do.
RUNNING_REPLICAS = ("RUNNING", "PENDING_MIGRATION")


@dataclass(frozen=True, slots=True)
class Application:
    """A model application, as the cluster describes it. `version` changes when it is redeployed.

    `since_s` is a Unix time; `replicas` counts them by Serve's state; `reason` says why it, or its
    new version, failed. `woken` is one that is warming because it had scaled to zero and was asked
    for. `room` is how many requests its running replicas take at a time, the part of this router;
    None: not known. `settled` is one whose replicas are all of its version, and as many as they
    should be.
    """

    name: str
    backend: str
    state: State
    since_s: float
    replicas: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None
    version: float = 0.0
    woken: bool = False
    room: int | None = None
    settled: bool = True

    @property
    def starts(self) -> bool:
        """Whether a replica of it is on its way, beside others that run or not."""
        return self.state == "warming" or self.has_starting_replicas

    @property
    def has_starting_replicas(self) -> bool:
        """Whether there is a replica that does not run yet."""
        return any(map(self.replicas.get, STARTING_REPLICAS))


class Cluster(Protocol):
    """What the router needs of whatever runs the models."""

    async def applications(self) -> Sequence[Application]:
        """The model applications there are now."""

    async def card(self, application: Application) -> ModelCard:
        """What a running application serves. Raises: BackendError."""

    async def wake(self, application: Application) -> None:
        """Has a cold application start a replica; returns when one runs. Raises: BackendError."""

    def doubt(self, name: str) -> None:
        """What is known of an application is not so: for a while it is asked for at each look."""

    async def loading(self) -> Mapping[str, Sequence[Progress]]:
        """How far the replicas are that are being loaded, by application, where that is known."""

    def num_queued(self, application: Application) -> int:
        """Requests that no replica has room for yet."""

    def exchange(self, application: Application, request: Exchange) -> AsyncGenerator[Item, None]:
        """Opens an exchange with a replica; closing the iterator, or cancelling, ends it there.

        Raises: RoundhouseError; NotTaken if no replica took it.
        """


# Told of each application that is new or has changed: what it was at the last look, and what it is.
Watcher = Callable[[Application | None, Application], None]


class Directory:
    """The applications by name and by model id. Lookups never wait."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        # What each said it serves, and how it was then.
        self._cards: dict[str, tuple[Application, ModelCard]] = {}
        self._found: Sequence[Application] = ()
        self._unlearnt = False
        self._applications: dict[str, Application] = {}
        self._models: dict[str, Application] = {}
        self._task: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        self._hurried = asyncio.Event()
        self.refreshed = asyncio.Event()
        self.watchers: list[Watcher] = []

    @property
    def applications(self) -> Sequence[Application]:
        """Every model application, in the order of their names."""
        return tuple(self._applications.values())

    @property
    def models(self) -> Mapping[str, Application]:
        """Every model id that clients may send, and the application that answers it."""
        return self._models

    def application(self, name: str) -> Application | None:
        """An application as it was at the last look."""
        return self._applications.get(name)

    def find(self, model: str) -> Application | None:
        """The application that answers a model id. One that has not said yet what it serves may
        have adapters, `MODEL:NAME`: a request for one must wake it, and be told that it warms."""
        if model in self._models:
            return self._models[model]
        base, separator, _ = model.rpartition(":")
        return self._applications.get(base) if separator and base not in self._cards else None

    @property
    def ready(self) -> bool:
        """Whether every application that should run does, and has said which models it serves. One
        that was cold and has been asked for does not make the others unready."""
        found = self._applications.values()
        return self.refreshed.is_set() and all(
            a.state == "cold" or a.woken or (a.state == "running" and a.name in self._cards)
            for a in found
        )

    def start(self) -> None:
        """Begins to poll, in the running loop."""
        if self._task is None:
            self._task = asyncio.create_task(self._poll())

    def stop(self) -> None:
        """Stops polling."""
        if self._task is not None:
            self._task.cancel()

    async def first_look(self) -> None:
        """Waits until the cluster has been asked once: before that nothing is known to be absent.

        Raises: BackendUnavailable, if the cluster does not answer.
        """
        try:
            async with asyncio.timeout(FIRST_LOOK_S):
                await self.refreshed.wait()
        except TimeoutError:
            raise BackendUnavailable("The router is starting.", retry_after_s=1) from None

    async def refresh(self) -> None:
        """Asks the cluster once. Where nothing has changed, and none has yet to say what it serves,
        there is nothing to do, however many applications there are."""
        found = await self._cluster.applications()
        if found != self._found or self._unlearnt:
            await self._learn_all(found)
        self.refreshed.set()
        self._look.set()
        self._look = asyncio.Event()

    async def _learn_all(self, found: Sequence[Application]) -> None:
        same = {id(application) for application in self._found}
        previous = self._applications
        self._applications = {
            a.name: previous[a.name] if id(a) in same else _with_since(a, previous.get(a.name))
            for a in sorted(found, key=lambda a: a.name)
        }
        self._index_models()  # before a card that is long in coming too: a state is seen at once
        unlearnt = [a for a in self._applications.values() if self._is_unlearnt(a)]
        await asyncio.gather(*map(self._learn, unlearnt))
        self._unlearnt = any(map(self._is_unlearnt, unlearnt))
        self._cards = {n: card for n, card in self._cards.items() if n in self._applications}
        self._index_models()
        self._found = found
        for name, application in self._applications.items():
            if application is not previous.get(name):
                for watcher in self.watchers:
                    watcher(previous.get(name), application)

    def _index_models(self) -> None:
        self._models = {
            model: application
            for application in self._applications.values()
            for model in self._models_of(application)
        }

    def doubt(self, name: str) -> None:
        """Has the poll look at an application afresh, and at once: it is not as it was said."""
        self._cluster.doubt(name)
        self.hurry()

    def hurry(self) -> None:
        """Has the poll look at once: something has just changed."""
        self._hurried.set()

    async def next_look(self) -> None:
        """Returns when the cluster has been asked again."""
        await self._look.wait()

    async def loading(self) -> Mapping[str, Sequence[Progress]]:
        """How far the replicas are that are being loaded; the cluster is asked only if any are."""
        if not any(application.starts for application in self._applications.values()):
            return {}
        return await self._cluster.loading()

    def _models_of(self, application: Application) -> tuple[str, ...]:
        """While a new version has not said what it serves, what the last one served."""
        _, card = self._cards.get(application.name, (None, None))
        return card.models if card else (application.name,)

    def _is_unlearnt(self, application: Application) -> bool:
        """Whether it runs, and has not said yet which models this version serves. While a replica
        of the last one may have answered, each change of them is another chance."""
        known, _ = self._cards.get(application.name, (None, None))
        if application.state != "running":
            return False
        if known is None or known.version != application.version:
            return True
        changed = application.settled or application.replicas != known.replicas
        return changed and not known.settled

    async def _learn(self, application: Application) -> None:
        """A running application says itself which models it serves, once per version."""
        try:
            card = await self._cluster.card(application)
            self._cards[application.name] = (application, card)
        except BackendError as exc:
            logger.warning("no card from application %s yet: %s", application.name, exc.message)

    async def _poll(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception as exc:  # noqa: BLE001 - the poll must outlive any fault of the cluster
                logger.warning("the cluster's state could not be read: %s", type(exc).__name__)
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_PERIOD_S):
                    await self._hurried.wait()
            self._hurried.clear()


def _with_since(now: Application, before: Application | None) -> Application:
    """Keeps the time of the last change of state, and what it began with, which the cluster does
    not tell."""
    if before is None:
        return now
    if before.state == "cold" and now.state == "warming" and not now.has_starting_replicas:
        # A new version is being built, which may be as cold: the old one is for so long.
        now = replace(now, state="cold", version=before.version)
    if before.state == now.state:
        now = replace(now, since_s=before.since_s)
    from_zero = before.state == "cold" or before.woken
    return replace(
        now, woken=from_zero and now.state == "warming" and now.version == before.version
    )
