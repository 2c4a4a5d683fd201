import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest

from deployments.errors import BackendUnavailable
from deployments.exchange import Exchange, Item, ModelCard
from serve_app.admission import Admission
from serve_app.directory import Application, Directory, State
from serve_app.listing import model_list, operator_list
from serve_app.warming import Warming

DEMO = Application("demo", "echo", "running", since_s=100.0, replicas={"RUNNING": 1}, version=1.0)
API = Application("api", "api", "running", since_s=100.0, version=1.0)
CARDS = {"demo": ("demo",), "api": ("gpt-4", "gpt-3.5")}


class TellingCluster:
    """A cluster that says what it is told to say; `asked` is the cards that were asked for."""

    def __init__(self, *applications: Application) -> None:
        self.found: Sequence[Application] = applications
        self.cards = {name: ModelCard("echo", models) for name, models in CARDS.items()}
        self.asked: list[str] = []
        self.broken = False
        self.polled = asyncio.Event()

    async def applications(self) -> Sequence[Application]:
        self.polled.set()
        if self.broken:
            raise RuntimeError("a cluster's fault, with a secret")
        return self.found

    async def card(self, application: Application) -> ModelCard:
        self.asked.append(application.name)
        if application.name not in self.cards:
            raise BackendUnavailable("no card")
        return self.cards[application.name]

    def exchange(self, application: Application, request: Exchange) -> AsyncGenerator[Item, None]:
        raise NotImplementedError


async def refreshed(*applications: Application) -> tuple[Directory, TellingCluster]:
    cluster = TellingCluster(*applications)
    directory = Directory(cluster)
    await directory.refresh()
    return directory, cluster


def names(directory: Directory) -> dict[str, str]:
    return {model: application.name for model, application in directory.models.items()}


async def test_a_running_application_says_what_it_serves() -> None:
    """Models are found by asking the applications, each once per version."""
    directory, cluster = await refreshed(DEMO, API)
    await directory.refresh()
    assert names(directory) == {"demo": "demo", "gpt-4": "api", "gpt-3.5": "api"}
    assert sorted(cluster.asked) == ["api", "demo"]
    cluster.found = [DEMO, replace(API, version=2.0)]
    cluster.cards["api"] = ModelCard("api", ("gpt-5",))
    await directory.refresh()
    assert names(directory) == {"demo": "demo", "gpt-5": "api"}


async def test_an_application_that_does_not_run_is_not_asked() -> None:
    """While it starts or has failed, a model goes by the name of its application."""
    directory, cluster = await refreshed(replace(DEMO, state="warming"))
    assert names(directory) == {"demo": "demo"}
    assert cluster.asked == []


async def test_adapters_of_an_application_that_does_not_run_yet() -> None:
    """Until an application has said what it serves, an id that begins with its name and a colon
    may be an adapter of it; then only those that it names are there."""
    directory, cluster = await refreshed(replace(DEMO, state="cold"))
    found = directory.find("demo:poet")
    assert found is not None
    assert found.name == "demo"
    assert directory.find("other:poet") is None
    assert names(directory) == {"demo": "demo"}
    cluster.cards["demo"] = ModelCard("echo", ("demo", "demo:v1:poet"))
    cluster.found = [DEMO]
    await directory.refresh()
    assert directory.find("demo:poet") is None
    assert directory.find("demo:v1:poet") is not None


async def test_a_redeployed_application_keeps_its_models() -> None:
    """While a new version has not said what it serves, the old names stay: no 404 in between."""
    directory, cluster = await refreshed(API)
    del cluster.cards["api"]
    for state in ("warming", "running", "failed"):
        cluster.found = [replace(API, version=2.0, state=state)]
        await directory.refresh()
        assert set(directory.models) == {"gpt-4", "gpt-3.5"}
        assert directory.models["gpt-4"].state == state


async def test_both_versions_are_asked_what_they_serve() -> None:
    """While replicas of two versions run the old one may answer for the new: an application is
    asked again at each change of its replicas, until all are of its version; then never."""
    directory, cluster = await refreshed(API)
    both, going = {"RUNNING": 1, "STARTING": 1}, {"RUNNING": 1, "STOPPING": 1}
    for replicas in ({"RUNNING": 1}, both, both, going):
        cluster.found = [replace(API, version=2.0, replicas=replicas, settled=False)]
        await directory.refresh()
    assert cluster.asked == ["api"] * 4
    cluster.cards["api"] = ModelCard("api", ("gpt-5",))
    for num_replicas in (1, 2):
        cluster.found = [replace(API, version=2.0, replicas={"RUNNING": num_replicas})]
        await directory.refresh()
        assert set(directory.models) == {"gpt-5"}
    assert cluster.asked == ["api"] * 5


async def test_a_cold_model_s_new_version_is_cold_while_it_is_built() -> None:
    """It need not start for /ready, which stays as it was; a replica of the new version must."""
    cold = replace(DEMO, state="cold", replicas={})
    directory, cluster = await refreshed(cold)
    cluster.found = [replace(cold, state="warming", version=2.0)]
    await directory.refresh()
    assert (directory.applications[0].state, directory.ready) == ("cold", True)
    cluster.found = [replace(cold, state="warming", version=2.0, replicas={"STARTING": 1})]
    await directory.refresh()
    assert (directory.applications[0].state, directory.ready) == ("warming", False)


async def test_what_is_removed_is_gone() -> None:
    """An application that is deleted takes its models along, and comes back as new."""
    directory, cluster = await refreshed(DEMO, API)
    cluster.found = [DEMO]
    await directory.refresh()
    assert names(directory) == {"demo": "demo"}
    cluster.found = [DEMO, replace(API, state="warming")]
    await directory.refresh()
    assert names(directory) == {"api": "api", "demo": "demo"}


async def test_since_is_the_time_of_the_last_change() -> None:
    """The time of a state stays while the state does."""
    directory, cluster = await refreshed(DEMO)
    cluster.found = [replace(DEMO, since_s=200.0)]
    await directory.refresh()
    assert directory.applications[0].since_s == 100.0
    cluster.found = [replace(DEMO, since_s=300.0, state="failed")]
    await directory.refresh()
    assert directory.applications[0].since_s == 300.0


@pytest.mark.parametrize(
    ("states", "ready"),
    [
        ((), True),
        (("running", "cold"), True),
        (("running", "warming"), False),
        (("failed",), False),
    ],
)
async def test_ready_when_everything_that_should_run_does(
    states: Sequence[State], ready: bool
) -> None:
    """Ready means that no application is starting or has failed; a cold one may stay cold."""
    names = ("demo", "api")  # which say what they serve
    applications = [
        replace(DEMO, name=name, state=state) for name, state in zip(names, states, strict=False)
    ]
    assert not Directory(TellingCluster()).ready
    directory, _ = await refreshed(*applications)
    assert directory.ready is ready


async def test_one_that_cannot_say_what_it_serves_does_not_hide_the_others() -> None:
    """A card that cannot be had costs its application's names, and nobody else's. Until it is
    there, not everything is ready."""
    cluster = TellingCluster(DEMO, API)
    card = cluster.cards.pop("api")
    directory = Directory(cluster)
    await directory.refresh()
    assert names(directory) == {"demo": "demo", "api": "api"}
    assert not directory.ready
    cluster.cards["api"] = card
    await directory.refresh()
    assert directory.ready


async def test_a_state_is_seen_while_a_card_is_awaited() -> None:
    """What is found by a model's name and what the list shows are the same, at any time."""
    directory, cluster = await refreshed(replace(DEMO, state="warming"))
    come, card = asyncio.Event(), cluster.card

    async def slow(application: Application) -> ModelCard:
        await come.wait()
        return await card(application)

    cluster.card = slow  # type: ignore[method-assign]
    cluster.found = [DEMO]
    looking = asyncio.create_task(directory.refresh())
    await asyncio.sleep(0)
    assert directory.find("demo") is directory.application("demo")
    assert directory.applications[0].state == "running"
    come.set()
    await looking
    assert directory.find("demo") is directory.application("demo")


async def test_polling_outlives_a_broken_cluster(caplog: pytest.LogCaptureFixture) -> None:
    """A cluster that cannot be read leaves the last view, and no secret in the log."""
    caplog.set_level("WARNING", "roundhouse")
    directory, cluster = await refreshed(DEMO)
    cluster.broken = True
    cluster.polled.clear()
    directory.start()
    directory.start()
    await cluster.polled.wait()
    await asyncio.sleep(0)
    assert names(directory) == {"demo": "demo"}
    assert "secret" not in caplog.text
    directory.stop()


async def test_the_first_look_is_waited_for() -> None:
    """Who asks before the cluster was seen waits until it is."""
    directory = Directory(TellingCluster(DEMO))
    looking = asyncio.create_task(directory.first_look())
    await asyncio.sleep(0)
    assert not looking.done()
    await directory.refresh()
    await looking


async def test_listings() -> None:
    """Clients see models in OpenAI's form; operators see applications, and why one failed."""
    failed = replace(DEMO, name="bad", state="failed", reason="no such file")
    directory, cluster = await refreshed(API, failed)
    rows = model_list(directory)["data"]
    assert [(row["id"], row["backend"], row["state"]) for row in rows] == [
        ("bad", "echo", "failed"),
        ("gpt-3.5", "api", "running"),
        ("gpt-4", "api", "running"),
    ]
    assert "no such file" not in str(rows)
    listed = await operator_list(directory, Warming(cluster, directory), Admission())
    assert listed["ready"] is False
    assert [(row["application"], row["reason"]) for row in listed["applications"]] == [
        ("api", None),
        ("bad", "no such file"),
    ]
    assert listed["applications"][0]["models"] == ["gpt-3.5", "gpt-4"]
