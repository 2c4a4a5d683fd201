import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from deployments.api import ApiBackend
from deployments.config import ApiConfig, ApiModel, EchoConfig
from deployments.errors import (
    BackendError,
    BackendUnavailable,
    ModelNotFound,
    ModelWarming,
    ReplicaDied,
    RequestError,
    RoundhouseError,
)
from deployments.exchange import EVENT_STREAM, Exchange, Head, Item, Tail
from deployments.testing import EchoBackend
from serve_app.account import Account
from serve_app.config import RouterSettings
from serve_app.directory import Application, Directory
from serve_app.dispatch import Answer, Dispatch
from serve_app.guard import Request, request_from_body
from tests.local_cluster import LocalCluster
from tests.plain_http import CHAT, chat
from tests.polling import until
from tests.upstream import EVENTS, Script, Upstream

ITEMS: list[Item] = [Head(503, EVENT_STREAM), b"data: a\n\n", b"data: b\n\n"]
OVERLOADED = b'{"error":{"message":"slow down"}}'


class NamedEcho(EchoBackend):
    """An echo that ignores the directions of the prompt: the fallback that can."""

    async def exchange(self, request: Exchange) -> Any:
        body = chat("the fallback", stream=json.loads(request.body).get("stream", False))
        plain = Exchange(request.path, json.dumps(body).encode(), request.request_id, request.model)
        async for item in super().exchange(plain):
            yield item


class Scripted(EchoBackend):
    """A backend that yields what it is told, and keeps its exchanges open for the test to see."""

    def __init__(self, *items: Item) -> None:
        super().__init__("scripted", EchoConfig())
        self.items = items
        self.opened: list[AsyncGenerator[Item, None]] = []

    def exchange(self, request: Exchange) -> AsyncGenerator[Item, None]:
        self.opened.append(self._items())
        return self.opened[-1]

    async def _items(self) -> AsyncGenerator[Item, None]:
        for item in self.items:
            yield item


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def cluster(upstream: Upstream) -> AsyncIterator[LocalCluster]:
    model = ApiModel(upstream_model="up", base_url=upstream.url, api_key_env=None)
    api = ApiBackend("api", ApiConfig(models={"api": model}))
    await api.start()
    echoes = {name: EchoBackend(name, EchoConfig()) for name in ("demo", "other")}
    yield LocalCluster({**echoes, "able": NamedEcho("able", EchoConfig()), "api": api})
    await api.stop()


async def opened(cluster: LocalCluster, request: Request, **settings: Any) -> Answer:
    directory = Directory(cluster)
    await directory.refresh()
    return await Dispatch(cluster, directory).open(
        request, Account("id-1", "POST", 1), RouterSettings(**settings)
    )


def asking(text: str = "hello", model: str = "demo", **more: Any) -> Request:
    return request_from_body(CHAT, json.dumps(chat(text, model, **more)).encode())


def tried(cluster: LocalCluster) -> list[str]:
    return [name for name, _ in cluster.exchanges]


async def test_a_whole_answer_is_whole_when_it_is_opened(cluster: LocalCluster) -> None:
    """What is not streamed has come whole, with its cost, before the client is answered."""
    answer = await opened(cluster, asking())
    assert json.loads(answer.first)["choices"][0]["message"]["content"] == "hello"
    assert (answer.model, answer.tail) == ("demo", Tail(1, 1))
    assert [item async for item in answer.rest] == []


async def test_a_stream_is_opened_with_its_first_bytes(cluster: LocalCluster) -> None:
    """Of a stream the first piece is there, and the rest comes as it is made."""
    answer = await opened(cluster, asking("a [[wait]]", stream=True))
    assert answer.head == Head(content_type=EVENT_STREAM)
    assert answer.first.startswith(b"data: ")
    await answer.rest.aclose()


async def test_the_exchange_says_what_was_asked(cluster: LocalCluster) -> None:
    """The backend is told path, body, id, the resolved model and the time there is."""
    request = asking(model="chat")
    await opened(cluster, request, aliases={"chat": "demo"}, request_timeout_s=9000)
    ((application, exchange),) = cluster.exchanges
    assert application == "demo"
    assert exchange.deadline_s is not None
    assert 8000 < exchange.deadline_s <= 9000
    assert replace(exchange, deadline_s=9) == Exchange(CHAT, request.body, "id-1", "demo", 9)


async def test_aliases_are_followed_to_the_end(cluster: LocalCluster) -> None:
    """An alias may stand for an alias."""
    aliases = {"a": "b", "b": "c", "c": "other"}
    assert (await opened(cluster, asking(model="a"), aliases=aliases)).model == "other"


@pytest.mark.parametrize("aliases", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "gone"}])
async def test_an_alias_to_nowhere_is_not_found(
    cluster: LocalCluster, aliases: dict[str, str]
) -> None:
    """A circle, or a name that is not there, is the same as an unknown model."""
    with pytest.raises(ModelNotFound) as caught:
        await opened(cluster, asking(model="a"), aliases=aliases)
    assert caught.value.message == ("The model 'a' does not exist or you do not have access to it.")


@pytest.mark.parametrize("text", ["[[fail]]", "[[crash]]", "[[overload]]"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_backend_that_fails_early_is_replaced(
    cluster: LocalCluster, text: str, stream: bool
) -> None:
    """Before the first byte the next in line answers; each is tried once, in order."""
    line = {"demo": ["other", "demo", "other", "gone", "able", "api"]}
    answer = await opened(cluster, asking(text, stream=stream), fallbacks=line)
    assert answer.model == "able"
    assert tried(cluster) == ["demo", "other", "able"]
    await answer.rest.aclose()


async def test_a_whole_answer_that_fails_late_is_replaced(cluster: LocalCluster) -> None:
    """What is not streamed may fail at its last word: none of it has been sent."""
    answer = await opened(cluster, asking("a b c [[fail]]"), fallbacks={"demo": ["able"]})
    assert answer.model == "able"


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503, 529])
@pytest.mark.parametrize("content_type", ["application/json", EVENT_STREAM])
async def test_an_upstream_that_fails_is_replaced(
    cluster: LocalCluster, upstream: Upstream, status: int, content_type: str
) -> None:
    """An upstream's overload, its own error, or a key it refuses: another backend may do better."""
    upstream.scripts["up"] = Script((OVERLOADED,), status, content_type)
    answer = await opened(cluster, asking(model="api"), fallbacks={"api": ["demo"]})
    assert answer.model == "demo"
    assert len(upstream.received) == 1


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_an_upstream_that_refuses_is_not(
    cluster: LocalCluster, upstream: Upstream, status: int
) -> None:
    """What is wrong with the request is wrong everywhere: nobody else is asked."""
    upstream.scripts["up"] = Script((b'{"error":{}}',), status)
    answer = await opened(cluster, asking(model="api"), fallbacks={"api": ["demo"]})
    assert (answer.model, answer.head.status, answer.first) == ("api", status, b'{"error":{}}')
    assert tried(cluster) == ["api"]


async def test_a_request_error_is_not_tried_elsewhere(cluster: LocalCluster) -> None:
    """A backend that finds fault with the request ends the matter."""
    request = Request("/v1/embeddings", b'{"model":"demo","input":"x"}', "demo")
    with pytest.raises(RequestError) as caught:
        await opened(cluster, request, fallbacks={"demo": ["other"]})
    assert caught.value.code == "unsupported_endpoint"
    assert tried(cluster) == ["demo"]


async def test_the_last_failure_is_what_the_client_hears(
    cluster: LocalCluster, upstream: Upstream
) -> None:
    """Where all fail, the last one's answer is given: an upstream's own as it is."""
    upstream.scripts["up"] = Script((OVERLOADED,), 429, headers={"retry-after": "3"})
    line = {"demo": ["other", "api"]}
    answer = await opened(cluster, asking("[[fail]]"), fallbacks=line)
    assert answer.head == Head(429, headers=(("retry-after", "3"),))
    assert answer.first == OVERLOADED
    with pytest.raises(BackendUnavailable):
        await opened(cluster, asking("[[fail]]", model="api"), fallbacks={"api": ["demo"]})


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_fallback_finds_wrong_is_not_told(
    cluster: LocalCluster, upstream: Upstream, stream: bool
) -> None:
    """A fallback that refuses the request leaves the first model's failure standing."""
    upstream.scripts["up"] = Script((b'{"error":{}}',), 400)
    with pytest.raises(BackendUnavailable):
        await opened(cluster, asking("[[fail]]", stream=stream), fallbacks={"demo": ["api"]})
    assert tried(cluster) == ["demo", "api"]


@pytest.mark.parametrize("items", [ITEMS, ITEMS[1:], [Tail(1, 1)], []])
async def test_what_was_given_up_is_not_left_open(cluster: LocalCluster, items: list[Item]) -> None:
    """An answer that another takes the place of is ended, however it was begun."""
    scripted = Scripted(*items)
    cluster.backends["scripted"] = scripted
    fallbacks = {"scripted": ["able"]}
    answer = await opened(cluster, asking(model="scripted"), fallbacks=fallbacks)
    assert answer.model == "able"
    assert [exchange.ag_frame for exchange in scripted.opened] == [None]


async def test_after_the_first_byte_nobody_takes_over(
    cluster: LocalCluster, upstream: Upstream
) -> None:
    """A stream that has begun is that backend's to the end, good or bad."""
    upstream.scripts["up"] = Script(EVENTS[:2], content_type=EVENT_STREAM)
    fallbacks = {"api": ["demo"]}
    answer = await opened(cluster, asking(model="api", stream=True), fallbacks=fallbacks)

    async def read() -> None:
        async with aclosing(answer.rest):
            async for _ in answer.rest:
                pass

    with pytest.raises(BackendError):
        await read()
    assert tried(cluster) == ["api"]


async def test_a_model_that_cannot_answer_is_passed_over(cluster: LocalCluster) -> None:
    """One that failed or is starting is not asked at all while a fallback runs."""
    cluster.states["demo"] = Application("demo", "echo", "failed", 0.0, reason="no such file")
    cluster.states["other"] = Application("other", "echo", "warming", 0.0)
    answer = await opened(cluster, asking(), fallbacks={"demo": ["other", "able"]})
    assert answer.model == "able"
    assert tried(cluster) == ["able"]


@pytest.mark.parametrize(
    ("state", "error"), [("failed", BackendUnavailable), ("warming", ModelWarming)]
)
async def test_without_fallback_the_state_is_told(
    cluster: LocalCluster, state: Any, error: type[RoundhouseError]
) -> None:
    """503, when to come back, and not why it failed: that is the operators' business."""
    cluster.states["demo"] = Application("demo", "echo", state, 0.0, reason="/secret/path")
    with pytest.raises(error) as caught:
        await opened(cluster, asking(), hold_s=0)
    assert caught.value.status == 503
    assert caught.value.retry_after_s
    assert "secret" not in caught.value.message


async def test_a_fallback_stands_in_for_one_that_was_removed(cluster: LocalCluster) -> None:
    """A model that is not there at all is answered by its fallback."""
    answer = await opened(cluster, asking(model="gone"), fallbacks={"gone": ["demo"]})
    assert answer.model == "demo"


async def test_giving_up_frees_the_backend(cluster: LocalCluster) -> None:
    """A request that is cancelled while it waits for its first byte leaves no work behind."""
    opening = asyncio.create_task(opened(cluster, asking("[[wait]]")))
    demo = cluster.backends["demo"]
    await until(lambda: demo.num_running == 1)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert demo.num_running == 0


class Dying(EchoBackend):
    """An echo whose replica dies of so many requests, each time before the first byte is out."""

    def __init__(self, num_deaths: int) -> None:
        super().__init__("demo", EchoConfig())
        self.num_deaths = num_deaths
        self.num_begun = 0

    async def exchange(self, request: Exchange) -> AsyncGenerator[Item, None]:
        self.num_begun += 1
        async for item in super().exchange(request):
            if self.num_begun <= self.num_deaths:
                raise ReplicaDied("The model's replica died.")
            yield item


@pytest.mark.parametrize("stream", [False, True])
async def test_what_died_with_its_replica_is_begun_once_more(stream: bool) -> None:
    """Another replica answers what one died with; what two died of is asked of no third."""
    backend = Dying(1)
    cluster = LocalCluster({"demo": backend})
    answer = await opened(cluster, asking(stream=stream))
    assert answer.good
    assert cluster.doubts == ["demo"]
    await answer.rest.aclose()
    backend = Dying(2)
    with pytest.raises(ReplicaDied):
        await opened(LocalCluster({"demo": backend}), asking(stream=stream))
    assert backend.num_begun == 2
