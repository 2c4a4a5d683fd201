"""`serve deploy` under load: what it names is changed, and no request of a client notices."""

from tests.change.conftest import STEADY, Changing
from tests.change.traffic import Load, traffic
from tests.integration.conftest import echo_application


def test_much_at_once(changing: Changing) -> None:
    """In one deploy a model is added, one gets two replicas more, one is rolled, one is put in its
    own place, and the router gets an alias; in the next the first is removed, and the second
    scaled down. Every answer is whole and right, of long streams on what goes too."""
    instance, before = changing.instance, changing.applications
    old = {name: changing.pids(name) for name in (*STEADY, "router")}
    changed = {**changing.applications, "newcomer": echo_application("newcomer")}
    changed["scaled"]["deployments"] = [{"name": "echo", "num_replicas": 3}]
    for name in ("rolled", "replaced"):
        changed[name]["args"]["max_ongoing_requests"] = 4001
    changed["router"]["deployments"][0]["user_config"]["aliases"] = {"another": "steady"}
    with traffic(changing.url, Load(STEADY, one_long_in=8)) as seen:
        changing.deploy(changed)
        instance.wait(lambda: not any(old[n] & changing.pids(n) for n in ("rolled", "replaced")))
        changing.wait_settled("scaled", 3)
        instance.wait(lambda: changing.answers("another"))
        instance.wait(lambda: instance.state("newcomer") == "running")
        with traffic(changing.url, Load(["newcomer"])) as answered:
            instance.wait(lambda: answered.count("good") > 20)
        changed["scaled"] = before["scaled"]
        del changed["newcomer"]
        changing.deploy(changed)
        instance.wait(lambda: instance.state("newcomer") is None)
        changing.wait_settled("scaled", 1)
    assert answered.bad == []
    assert seen.bad == []
    assert {n: changing.pids(n) for n in ("steady", "router")} == {
        n: old[n] for n in ("steady", "router")
    }


def test_the_router_is_rolled(changing: Changing) -> None:
    """A new environment, so a new process, for the one that all requests go through."""
    before, changed = changing.pids("router"), changing.applications
    env = changed["router"]["runtime_env"]["env_vars"]
    changed["router"]["runtime_env"] = {"env_vars": {**env, "ROLLED": "1"}}
    with traffic(changing.url, Load(STEADY, one_long_in=8)) as seen:
        changing.deploy(changed)
        changing.instance.wait(lambda: not before & changing.pids("router"))
        changing.wait_settled("router", 1)
        so_far = seen.count("good")
        changing.instance.wait(lambda: seen.count("good") > so_far + 40)
    assert seen.bad == []
