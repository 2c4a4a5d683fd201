"""Replicas killed under load: what they had not begun to answer is answered by others."""

import os
import signal

import pytest

from tests.change.conftest import Changing
from tests.change.traffic import Load, traffic


@pytest.mark.parametrize("model", ["steady", "scaled"])
def test_a_replica_is_killed(changing: Changing, model: str) -> None:
    """With another replica or without: every answer that had not begun comes all the same, and
    streams that had say that they are broken. The dead one is replaced."""
    num_replicas = 2 if model == "scaled" else 1
    before, changed = changing.applications, changing.applications
    if num_replicas > 1:
        changed[model]["deployments"] = [{"name": "echo", "num_replicas": num_replicas}]
        changing.deploy(changed)
        changing.wait_settled(model, num_replicas)
    killed = min(changing.pids(model))
    with traffic(changing.url, Load([model], one_long_in=10)) as seen:
        changing.instance.wait(lambda: seen.count("good") > 20)
        os.kill(killed, signal.SIGKILL)
        changing.instance.wait(lambda: len(changing.pids(model) - {killed}) == num_replicas)
        changing.wait_settled(model, num_replicas)
        num_good = seen.count("good")
        changing.instance.wait(lambda: seen.count("good") > num_good + 20)
    assert [o for o in seen.outcomes if o.kind not in {"good", "broken"}] == []
    broken = [o for o in seen.outcomes if o.kind == "broken"]
    assert all(o.asked.stream and "replica died" in o.detail for o in broken)
    changing.deploy(before)
    changing.wait_settled(model, 1)
