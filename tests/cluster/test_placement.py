"""Where Ray and Serve really put replicas, on nodes whose GPUs are only declared."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util import placement_group_table

from tests.cluster.simulated import Simulated, cpu_node, gpu_node, simulated

MODEL: dict[str, Any] = {"route_prefix": None, "import_path": "serve_app.app:model"}
SMALL = {"num_cpus": 0.1}


def echo(name: str, replicas: int = 1, **args: Any) -> dict[str, Any]:
    deployments = [{"name": "echo", "num_replicas": replicas}]
    return {
        **MODEL,
        "name": name,
        "args": {"backend": "echo", **SMALL, **args},
        "deployments": deployments,
    }


APPLICATIONS = [
    {"name": "router", "route_prefix": "/", "import_path": "serve_app.app:router", "args": {}},
    {
        **MODEL,
        "name": "api",
        "args": {"backend": "api", **SMALL, "models": {"gpt": {"upstream_model": "gpt"}}},
        "deployments": [{"name": "api", "num_replicas": 3}],
    },
    echo("small"),
    echo("labelled", label_selector={"kind": "l4"}),
    echo("wide", num_gpus=2, tensor_parallel_size=2, accelerator_type="L4"),
    {
        **echo("steered", autoscaling={"max_replicas": 2}),
        "deployments": [
            {
                "name": "echo",
                "autoscaling_config": {
                    "max_replicas": 4,
                    "policy": {"policy_function": "tests.cluster.steering:three"},
                },
            }
        ],
    },
    echo("large", num_gpus=8),
    echo("elsewhere", num_gpus=1, accelerator_type="T4"),
    {
        **MODEL,
        "name": "demo-hf",
        "args": {"model_type": "demo", "backend": "huggingface", **SMALL, "num_gpus": 0.5},
    },
]
FITTING = ("api", "small", "steered", "labelled", "wide", "demo-hf")
STAGES = echo("stages", num_gpus=6, tensor_parallel_size=3, pipeline_parallel_size=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Simulated]:
    """One node without GPUs, two with some; all that fits runs."""
    with simulated(cpu_node(2), gpu_node(4, "H100"), gpu_node(5, "L4")) as running:
        running.deploy(APPLICATIONS)
        running.wait(lambda: all(state(running, name) == "running" for name in FITTING))
        running.deploy([*APPLICATIONS, STAGES])  # the rest of the GPUs
        running.wait(lambda: state(running, "stages") == "running")
        yield running


def state(cluster: Simulated, application: str) -> str | None:
    row = cluster.rows().get(application)
    return row["state"] if row else None


def test_cpu_replicas_keep_off_gpu_nodes(cluster: Simulated) -> None:
    """The router, API models and what else needs no GPU are on the node without GPUs."""
    assert cluster.nodes_of("router") == ["cpu"]
    cluster.wait(lambda: cluster.nodes_of("api") == ["cpu"] * 3)
    assert cluster.nodes_of("small") == ["cpu"]


def test_gpus_of_the_kind_that_is_asked_for(cluster: Simulated) -> None:
    """`accelerator_type` and `label_selector` decide the node."""
    assert cluster.nodes_of("wide") == ["l4"]
    assert cluster.nodes_of("labelled") == ["l4"]


def test_bundles_match_the_shards(cluster: Simulated) -> None:
    """TP x PP is one placement group with a GPU for each shard, over both nodes where neither has
    room for all; the replica sits in its first bundle."""
    (group,) = [g for g in placement_group_table().values() if g["state"] == "CREATED"]
    assert group["bundles"] == {0: {"CPU": 0.1, "GPU": 1.0}} | {
        i: {"GPU": 1.0} for i in range(1, 6)
    }
    assert group["strategy"] == "PACK"
    kinds = cluster.kinds()
    assert {kinds[node] for node in group["bundles_to_node_id"].values()} == {"h100", "l4"}
    assert cluster.nodes_of("stages") == [kinds[group["bundles_to_node_id"][0]]]


@pytest.mark.parametrize(
    ("application", "reason"),
    [
        ("large", "It does not fit the cluster: it asks one node for 8 GPUs; the largest has 5."),
        ("elsewhere", "It does not fit the cluster: it asks for T4 GPUs; there are H100, L4."),
    ],
)
def test_a_model_that_cannot_fit_says_why(
    cluster: Simulated, application: str, reason: str
) -> None:
    """/-/models has the reason, requests are refused at once, and the others serve."""
    cluster.wait(lambda: state(cluster, application) == "failed")
    assert cluster.rows()[application]["reason"] == reason
    assert cluster.request("/ready")[0] == 503
    assert ask(cluster, application)[0] == 503


def test_the_others_serve(cluster: Simulated) -> None:
    """Real requests are answered from every kind of node, by a real engine too."""
    for name in ("small", "labelled", "wide", "stages"):
        status, answer = ask(cluster, name)
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "Repeat: lantern")
    status, answer = ask(cluster, "demo-hf")
    assert (status, answer["choices"][0]["message"]["content"].strip()) == (200, "lantern")


def test_an_operator_s_policy_takes_the_place_of_ours(cluster: Simulated) -> None:
    """An `autoscaling_config` under `deployments:` with a policy of its own says how many replicas
    there are, whatever `autoscaling` in the args asks for; they answer."""
    cluster.wait(lambda: len(cluster.nodes_of("steered")) == 3)
    status, answer = ask(cluster, "steered")
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "Repeat: lantern")


def test_plan_cluster_asks_the_running_cluster(cluster: Simulated, tmp_path: Path) -> None:
    """Without `--nodes` the plan is for the nodes that there are, and agrees with where Serve has
    put the replicas and what it could not place."""
    (tmp_path / "config.yaml").write_text(json.dumps({"applications": APPLICATIONS}))
    command = [sys.executable, "-m", "serve_app", "plan-cluster", str(tmp_path / "config.yaml")]
    address = ray.get_runtime_context().gcs_address
    done = subprocess.run(
        [*command, "--json"],
        env={**os.environ, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    plan = json.loads(done.stdout)
    assert done.returncode == 1
    assert plan["nodes_known"] == f"in the running cluster {address}"
    kinds = cluster.kinds()
    rows = {row["application"]: row for row in plan["applications"]}
    assert {name for name, row in rows.items() if row["why"]} == {"large", "elsewhere"}
    for name in ("router", "api", "small", "labelled", "wide"):
        assert {kinds[node] for on in rows[name]["on"] for node in on} == {*cluster.nodes_of(name)}
    assert rows["large"]["why"] == "asks one node for 8 GPUs; the largest has 5"


def ask(cluster: Simulated, model: str) -> tuple[int, Any]:
    messages = [{"role": "user", "content": "Repeat: lantern"}]
    return cluster.request("/v1/chat/completions", {"model": model, "messages": messages})
