"""`serve deploy` under load: what it names is changed, and no request of a client notices."""

from functools import partial

from ray import serve

from tests.change.conftest import STEADY, Changing
from tests.change.traffic import Load, traffic
from tests.integration.conftest import echo_application

TO_ZERO = {"min_replicas": 0}


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


def test_a_cold_model_is_redeployed(changing: Changing) -> None:
    """Neither another model's change nor its own makes a model without replicas one that should
    run: /ready is 200 all the while. Then a request starts it."""
    instance, before = changing.instance, changing.applications
    changed = {**changing.applications, "cold": echo_application("cold", autoscaling=TO_ZERO)}
    changing.deploy(changed)
    instance.wait(lambda: instance.state("cold") == "cold" and instance.get("/ready")[0] == 200)
    said: list[int] = []

    def settled(deployed_at: float) -> bool:
        said.append(instance.get("/ready")[0])
        cold = serve.status().applications["cold"]
        return cold.last_deployed_time_s > deployed_at and cold.status == "RUNNING"

    for name in ("steady", "cold"):
        deployed_at = serve.status().applications["cold"].last_deployed_time_s
        changed[name]["args"]["max_ongoing_requests"] = 4002
        changing.deploy(changed)
        instance.wait(partial(settled, deployed_at))
    assert set(said) == {200}
    assert changing.answers("cold")
    changing.deploy(before)
    instance.wait(lambda: instance.state("cold") is None)


def test_what_a_new_version_serves_is_seen(changing: Changing) -> None:
    """A redeployed application answers by the names of its new version once that runs, though its
    old one was asked for its names while both did."""
    instance, before = changing.instance, changing.applications
    upstream = {"upstream_model": "m"}
    gate = echo_application("gate") | {"args": {"backend": "api", "models": {"old": upstream}}}
    changed = {**changing.applications, "gate": gate}
    changing.deploy(changed)
    instance.wait(lambda: "old" in changing.models)
    gate["args"] = {"backend": "api", "models": {"new": upstream}}
    changing.deploy(changed)
    instance.wait(lambda: {"old", "new"} & changing.models == {"new"})
    changing.deploy(before)
    instance.wait(lambda: "new" not in changing.models)


def test_a_version_that_cannot_be_built_harms_nobody(changing: Changing) -> None:
    """Args that do not validate fail the new version only: the model answers by the old one, and
    operators are told why."""
    instance, before = changing.instance, changing.applications
    changed, pids = changing.applications, changing.pids("steady")
    changed["steady"]["args"]["nonsense"] = True
    with traffic(changing.url, Load(STEADY, one_long_in=8)) as seen:
        changing.deploy(changed)
        instance.wait(lambda: "args.nonsense: unknown key" in (changing.reason("steady") or ""))
        so_far = seen.count("good")
        instance.wait(lambda: seen.count("good") > so_far + 40)
        assert instance.state("steady") == "running"
        changing.deploy(before)
        changing.wait_status("steady", "RUNNING")
        instance.wait(lambda: changing.reason("steady") == "")  # at the router's next look
    assert seen.bad == []
    assert changing.pids("steady") == pids


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


def test_a_router_that_cannot_be_built_harms_nobody(changing: Changing) -> None:
    """Args that the router refuses leave the one that runs as it is."""
    before, changed, pids = changing.applications, changing.applications, changing.pids("router")
    changed["router"]["args"] = {"nonsense": True}
    with traffic(changing.url, Load(STEADY, one_long_in=8)) as seen:
        changing.deploy(changed)
        changing.wait_status("router", "DEPLOY_FAILED")
        so_far = seen.count("good")
        changing.instance.wait(lambda: seen.count("good") > so_far + 40)
        assert changing.instance.get("/ready")[0] == 200
        changing.deploy(before)
        changing.wait_status("router", "RUNNING")
    assert seen.bad == []
    assert changing.pids("router") == pids
