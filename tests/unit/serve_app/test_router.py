import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import openai
import pytest

from deployments.echo_script import SECRET
from deployments.exchange import Exchange, Item, ModelCard
from deployments.progress import Progress, Shard
from serve_app.config import RouterSettings
from serve_app.directory import Application, State
from serve_app.guard import digest
from serve_app.router import RouterApp
from tests.local_cluster import LocalCluster, serving
from tests.plain_http import CHAT, Answered, chat, post, request

NEW_ID = re.compile("[0-9a-f]{32}")


def client_of(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key="x", max_retries=0, _strict_response_validation=True
    )


async def test_the_openai_client_is_served(url: str) -> None:
    """OpenAI's own client, validating strictly, gets chats, streams, completions and models."""
    async with client_of(url) as client:
        messages = [{"role": "user", "content": "one two"}]
        whole = await client.chat.completions.create(model="demo", messages=messages)
        assert whole.choices[0].message.content == "one two"
        options = {"include_usage": True}
        stream = await client.chat.completions.create(
            model="demo", messages=messages, stream=True, stream_options=options
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
        assert text == "one two"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 4
        prompted = await client.completions.create(model="other", prompt="three")
        assert prompted.choices[0].text == "three"
        assert [m.id for m in (await client.models.list()).data] == ["demo", "org/slashed", "other"]


@pytest.mark.parametrize("name", ["demo", "org/slashed", "alias"])
async def test_one_model_is_shown(url: str, app: RouterApp, name: str) -> None:
    """A model is shown by name, encoded or not, with its kind and state; an alias as its model."""
    app.settings = RouterSettings(aliases={"alias": "org/slashed"})
    async with client_of(url) as client:
        model = await client.models.retrieve(name)
    assert model.id == app.settings.resolve(name)
    assert model.to_dict()["state"] == "running"
    assert (await request("GET", f"{url}/v1/models/{name}")).json["backend"] == "echo"


@pytest.mark.parametrize(
    ("body", "served_by"),
    [
        (chat(model="demo"), "demo"),
        (chat(model="org/slashed"), "org/slashed"),
        ({**chat(), "model_type": "demo"}, "demo"),
        ({"model_type": "other", "messages": chat()["messages"]}, "other"),
        (chat(model="nickname"), "other"),
        (chat(model="chain"), "other"),
        (chat("[[fail]]", model="demo"), None),
    ],
)
async def test_the_model_is_found(
    url: str, app: RouterApp, body: dict[str, object], served_by: str | None
) -> None:
    """By name, by `model_type`, or through aliases; the answer says who gave it."""
    app.settings = RouterSettings(aliases={"nickname": "other", "chain": "nickname"})
    answer = await post(url + CHAT, body)
    assert answer.headers.get("x-served-by") == served_by
    assert answer.status == (200 if served_by else 503)


async def test_a_fallback_says_who_served(url: str, app: RouterApp) -> None:
    """When another model had to answer, the answer says so."""
    app.settings = RouterSettings(fallbacks={"gone": ["demo"]})
    answer = await post(url + CHAT, chat(model="gone"))
    assert (answer.status, answer.headers["x-served-by"]) == (200, "demo")


async def test_settings_are_reloaded_between_requests(url: str, app: RouterApp) -> None:
    """New settings count from the next request on, without a restart."""
    assert (await post(url + CHAT, chat(model="new"))).status == 404
    app.settings = RouterSettings(aliases={"new": "demo"}, max_body_bytes=100)
    assert (await post(url + CHAT, chat(model="new"))).status == 200
    assert (await post(url + CHAT, chat("x" * 100, model="new"))).status == 413
    app.settings = RouterSettings()
    assert (await post(url + CHAT, chat(model="new"))).status == 404


async def test_an_unknown_model_is_the_same_everywhere(url: str) -> None:
    """Asked for an answer or for its object, an unknown model gets one and the same 404."""
    asked = await post(url + CHAT, chat(model="nobody"))
    shown = await request("GET", f"{url}/v1/models/nobody")
    assert asked.body == shown.body
    assert (asked.status, shown.status) == (404, 404)
    assert (asked.error["code"], asked.error["param"]) == ("model_not_found", "model")


async def test_health_is_about_the_process(url: str, cluster: LocalCluster, app: RouterApp) -> None:
    """Healthy is a process that answers, whatever the models do."""
    cluster.states["demo"] = Application("demo", "echo", "failed", 0.0)
    await app.directory.refresh()
    assert (await request("GET", url + "/health")).json == {"status": "ok"}


@pytest.mark.parametrize(("state", "status"), [("running", 200), ("cold", 200), ("warming", 503)])
async def test_ready_when_everything_runs(
    url: str, cluster: LocalCluster, app: RouterApp, state: State, status: int
) -> None:
    """Not ready is a 503 in OpenAI's envelope that says when to ask again."""
    cluster.states["demo"] = Application("demo", "echo", state, 0.0)
    await app.directory.refresh()
    answer = await request("GET", url + "/ready")
    assert answer.status == status
    if status == 503:
        assert answer.error["code"] == "model_unavailable"
        assert answer.headers["retry-after"] == "1"


async def test_why_a_model_failed_is_told_to_operators_only(
    url: str, cluster: LocalCluster, app: RouterApp
) -> None:
    """/-/models has the reason; clients, probes and listings get 503 or the state, no more."""
    reason = "No such file: /srv/weights"
    cluster.states["demo"] = Application("demo", "echo", "failed", 0.0, {"UNHEALTHY": 1}, reason)
    await app.directory.refresh()
    rows = (await request("GET", url + "/-/models")).json["applications"]
    assert rows[0] == {
        "application": "demo",
        "models": ["demo"],
        "backend": "echo",
        "state": "failed",
        "since": 0.0,
        "replicas": {"UNHEALTHY": 1},
        "reason": reason,
        "held": 0,
        "expected_s": None,
        "loading": [],
        "ongoing": 0,
        "room": None,
    }
    refused = await post(url + CHAT, chat())
    assert (refused.status, refused.error["code"]) == (503, "model_unavailable")
    assert refused.headers["retry-after"] == "60"
    others = [await request("GET", url + path) for path in ("/ready", "/v1/models", "/health")]
    assert not any(b"weights" in answer.body for answer in (refused, *others))
    assert (await post(url + CHAT, chat(model="other"))).status == 200


async def test_how_far_a_load_is_is_told_to_operators(
    url: str, cluster: LocalCluster, app: RouterApp
) -> None:
    """/-/models has each loading replica's percentage and bytes, by shard, while there is one."""
    shards = (Shard("model-1.safetensors", 60, 60), Shard("model-2.safetensors", 3, 30))
    cluster.progress["demo"] = [Progress("loading weights", shards)]
    rows = (await request("GET", url + "/-/models")).json["applications"]
    assert rows[0]["loading"] == []  # all run: the cluster is not asked
    cluster.states["demo"] = Application("demo", "echo", "running", 0.0, {"STARTING": 1})
    await app.directory.refresh()
    rows = (await request("GET", url + "/-/models")).json["applications"]
    assert rows[0]["loading"] == [
        {
            "stage": "loading weights",
            "percent": 70.0,
            "bytes": 63,
            "total_bytes": 90,
            "shards": [
                {"file": "model-1.safetensors", "bytes": 60, "total_bytes": 60},
                {"file": "model-2.safetensors", "bytes": 3, "total_bytes": 30},
            ],
        }
    ]
    assert rows[1]["loading"] == []


@pytest.mark.parametrize(
    ("authorization", "status"),
    [(None, 401), ("Bearer wrong", 401), ("Basic c2s6", 401), ("Bearer sk-one", 200)],
)
async def test_keys_open_everything_but_probes(
    cluster: LocalCluster, authorization: str | None, status: int
) -> None:
    """With keys configured, models and operators' pages ask for one; probes never do."""
    headers = {"authorization": authorization} if authorization else {}
    async with serving(RouterApp(cluster, [digest("sk-one")])) as url:
        answers = [
            await post(url + CHAT, chat(), headers),
            await request("GET", url + "/v1/models", headers),
            await request("GET", url + "/v1/models/demo", headers),
            await request("GET", url + "/-/models", headers),
        ]
        probes = [await request("GET", url + path, headers) for path in ("/health", "/ready")]
        unknown = await request("GET", url + "/metrics", headers)
    assert [answer.status for answer in answers] == [status] * 4
    assert [probe.status for probe in probes] == [200, 200]
    assert unknown.status == (401 if status == 401 else 404)
    if status == 401:
        assert {answer.error["code"] for answer in answers} == {"invalid_api_key"}
        assert cluster.exchanges == []


@pytest.mark.parametrize("host", ["evil/health?", "x/health", "/health#", ""])
async def test_the_host_header_opens_nothing(cluster: LocalCluster, host: str) -> None:
    """Rights rest on the path alone: no Host header makes a page a probe (CVE-2026-48710)."""
    async with serving(RouterApp(cluster, [digest("sk-one")])) as url:
        assert (await request("GET", url + "/-/models", {"host": host})).status in {400, 401}


async def test_every_answer_has_the_requests_id(url: str) -> None:
    """The client's own id comes back where it is safe, another where it is not or missing."""
    asked: list[Callable[[dict[str, str]], Awaitable[Answered]]] = [
        lambda headers: post(url + CHAT, chat(), headers),
        lambda headers: post(url + CHAT, chat(stream=True), headers),
        lambda headers: post(url + CHAT, b"no json", headers),
        lambda headers: request("GET", url + "/nowhere", headers),
        lambda headers: request("HEAD", url + "/health", headers),
    ]
    for ask in asked:
        assert (await ask({"x-request-id": "my-id.1"})).headers["x-request-id"] == "my-id.1"
        unsafe: list[dict[str, str]] = [{}, {"x-request-id": "x" * 200}, {"x-request-id": "a b"}]
        for headers in unsafe:
            assert NEW_ID.fullmatch((await ask(headers)).headers["x-request-id"])


async def test_the_request_id_reaches_the_backend(url: str, cluster: LocalCluster) -> None:
    """The id that the client is told is the one that the backend logs by."""
    answer = await post(url + CHAT, chat())
    ((_, exchange),) = cluster.exchanges
    assert exchange.request_id == answer.headers["x-request-id"]


async def test_head_is_get_without_a_body(url: str) -> None:
    """HEAD has GET's status and length, and no body."""
    for path in ("/health", "/v1/models", "/-/models", "/v1/models/demo"):
        head, get = [await request(method, url + path) for method in ("HEAD", "GET")]
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(get.body))


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST"),
        ("PUT", CHAT, "POST"),
        ("DELETE", "/v1/embeddings", "POST"),
        ("OPTIONS", CHAT, "POST"),
        ("TRACE", CHAT, "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/demo", "GET"),
        ("POST", "/v1/models/demo", "GET"),
        ("POST", "/health", "GET"),
        ("PATCH", "/ready", "GET"),
        ("POST", "/-/models", "GET"),
    ],
)
async def test_another_method_is_told_which(
    url: str, cluster: LocalCluster, method: str, path: str, allow: str
) -> None:
    """A URL that is there, asked in the wrong way: 405, and which way is right."""
    answer = await request(method, url + path)
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allow
    assert cluster.exchanges == []


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/v1", "/V1/models", "/v2/chat/completions", "/health/", "/-/routes", "/-/healthz"),
        *("/metrics", "/docs", "/openapi.json", "/admin", "/invocations", "/collective_rpc"),
        *("/pause", "/tokenize"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_there_is_nothing_else(
    url: str, cluster: LocalCluster, method: str, path: str
) -> None:
    """Pages of other servers, and slips of the pen: 404, and no backend hears of it."""
    answer = await request(method, url + path)
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert cluster.exchanges == []


async def test_other_endpoints_are_the_backends_to_refuse(url: str, cluster: LocalCluster) -> None:
    """A /v1 path that the router does not know is refused by the backend that cannot answer it."""
    answer = await post(url + "/v1/embeddings", {"model": "demo", "input": "x"})
    assert (answer.status, answer.error["code"]) == (404, "unsupported_endpoint")
    assert len(cluster.exchanges) == 1


class BrokenCluster:
    """A cluster whose every exchange fails in a way that nobody foresaw."""

    async def applications(self) -> Sequence[Application]:
        return [Application("demo", "echo", "running", 0.0)]

    async def card(self, application: Application) -> ModelCard:
        return ModelCard("echo", ("demo",))

    async def exchange(
        self, application: Application, request: Exchange
    ) -> AsyncGenerator[Item, None]:
        raise RuntimeError(f"connection string with {SECRET}")
        yield b""


async def test_the_unforeseen_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody foresaw is a plain 500; its text is in no answer and no log."""
    async with serving(RouterApp(BrokenCluster())) as url:
        answer = await post(url + CHAT, chat(), {"x-request-id": "find-me"})
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert SECRET.encode() not in answer.body
    assert "find-me: unforeseen RuntimeError" in caplog.text
    assert SECRET not in caplog.text


async def test_before_the_first_look_requests_wait(cluster: LocalCluster) -> None:
    """A router that has just started knows its models before it says that one does not exist, or
    does not run: a new one beside others makes none of them unready."""
    app = RouterApp(cluster)
    async with serving(app) as url:
        app.directory.refreshed.clear()
        assert (await request("GET", url + "/health")).status == 200
        answer = await request("GET", url + "/ready")  # when the poll has looked again
        assert answer.status == 200
        app.directory.refreshed.clear()
        assert (await post(url + CHAT, chat())).status == 200
