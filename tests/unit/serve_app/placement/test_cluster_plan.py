"""`plan-cluster`: where models land, what does not fit and why, what ranges would need."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app.cli import main
from serve_app.placement.node import Node
from serve_app.placement.shape import Shape, objection
from serve_app.placement.space import Space
from serve_app.placement.spec import parse
from tests.unit.serve_app.placement.nodes import CPU_NODE, gpu_node

ROOT = Path(__file__).parents[4]
NODES = "2x4xH100-80GB,1x2xL4-24GB,1x16CPU"
MODEL: dict[str, Any] = {"route_prefix": None, "import_path": "serve_app.app:model"}
ROUTER = {"name": "router", "route_prefix": "/", "import_path": "serve_app.app:router"}


def vllm(name: str, low: int = 1, high: int | None = None, **args: Any) -> dict[str, Any]:
    scaling = {"min_replicas": low, "max_replicas": high or max(low, 1)}
    return {
        **MODEL,
        "name": name,
        "args": {"backend": "vllm", "checkpoint": "/m", **args},
        "deployments": [{"name": "vllm", "autoscaling_config": scaling}],
    }


@pytest.fixture
def plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Plans applications by the command, as JSON: exit status, rows by name, and all of it."""

    def planned(*applications: Any, nodes: str = NODES) -> tuple[int, dict[str, Any], Any]:
        file = tmp_path / "serve_config.yaml"
        file.write_text(yaml.safe_dump({"applications": [ROUTER, *applications]}))
        status = main(["plan-cluster", str(file), "--nodes", nodes, "--json"])
        told = json.loads(capsys.readouterr().out)
        return status, {row["application"]: row for row in told["applications"]}, told

    return planned


def test_where_models_land(plan: Any) -> None:
    """Every replica of the least is on a node that has what it takes; what needs no GPU is on the
    node without."""
    api = {
        **MODEL,
        "name": "api",
        "args": {"backend": "api", "models": {"m": {"upstream_model": "m"}}},
    }
    status, rows, told = plan(
        api,
        vllm("wide", tensor_parallel_size=4, accelerator_type="H100"),
        vllm("small", 2, 4, accelerator_type="L4"),
        vllm("both", num_gpus=0.5, accelerator_type="H100"),
    )
    assert status == 0
    assert rows["router"]["on"] == rows["api"]["on"] == [["cpu-4"]]
    assert rows["wide"]["on"][0][0].startswith("h100")
    assert rows["both"]["on"][0][0].startswith("h100")
    assert rows["both"]["on"] != rows["wide"]["on"]
    assert rows["small"]["on"] == [["l4-3"], ["l4-3"]]
    assert told["minimum"] == {"replicas": 6, "replicas_without_room": 0, "gpus": 6.5}
    assert told["maximum"] == {"replicas": 8, "replicas_without_room": 2, "gpus": 8.5}
    assert (rows["small"]["max_fitting"], rows["small"]["fits"]) == (2, True)


def test_stages_land_on_several_nodes(plan: Any) -> None:
    """TP x PP larger than a node is spread over as few nodes as have room."""
    stages = {"tensor_parallel_size": 4, "pipeline_parallel_size": 2, "accelerator_type": "H100"}
    status, rows, _ = plan(vllm("huge", **stages))
    assert status == 0
    assert sorted(rows["huge"]["on"][0]) == ["h100-1", "h100-2"]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"tensor_parallel_size": 8}, "asks one node for 8 GPUs; the largest has 4"),
        ({"accelerator_type": "T4"}, "asks for T4 GPUs; there are H100, L4"),
        (
            {"tensor_parallel_size": 4, "accelerator_type": "L4"},
            "of those with L4, it asks one node for 4 GPUs; the largest has 2",
        ),
        ({"label_selector": {"pool": "b"}, "num_gpus": 1}, "no node has the labels pool: b"),
        (
            {"tensor_parallel_size": 4, "pipeline_parallel_size": 3},
            "asks for 12 GPUs; all nodes together have 10",
        ),
        ({"model_type": "falcon-40b-instruct", "tensor_parallel_size": 1}, "need GPUs of 87 GB"),
    ],
)
def test_what_never_fits_is_told_with_the_reason(plan: Any, args: Any, why: str) -> None:
    """A model that no node could run is told, with what it asks for and what there is, even one
    that starts with its first request only; the others are planned all the same."""
    if "model_type" in args:
        args = {**args, "checkpoint": "tiiuae/falcon-40b-instruct"}
    status, rows, _ = plan(vllm("never", 0, 1, **args), vllm("other"))
    assert status == 1
    assert why in rows["never"]["why"]
    assert rows["other"]["fits"]


def test_too_many_at_the_least(plan: Any) -> None:
    """Minimums that do not fit beside each other are refused; maximums are only told."""
    status, rows, told = plan(vllm("greedy", 11, 20))
    assert status == 1
    assert rows["greedy"]["why"] == "of 11 replicas at the least, there is room for 10"
    assert told["maximum"]["replicas_without_room"] == 10


def test_smaller_gpus_are_warned_of(plan: Any) -> None:
    """Ray counts GPUs: where one with too little memory would be taken, the plan says so."""
    model = {"model_type": "llama-2-13b-chat", "checkpoint": "meta-llama/Llama-2-13b-chat-hf"}
    _, rows, _ = plan(vllm("open", **model), vllm("bound", **model, accelerator_type="H100"))
    assert "4xL4" not in rows["open"]["on"][0][0]
    assert "Ray may put it on 2xL4-24GB" in rows["open"]["warning"]
    assert rows["bound"]["warning"] is None


def test_the_files_own_options_count(plan: Any) -> None:
    """What stands under `deployments:` is what Serve would get: options replaced as a whole."""
    model = vllm("own")
    model["deployments"] = [
        {"name": "vllm", "num_replicas": 2, "ray_actor_options": {"num_gpus": 2, "num_cpus": 1}}
    ]
    _, rows, _ = plan(model)
    assert (rows["own"]["gpus_per_replica"], rows["own"]["min_replicas"]) == (2, 2)


def test_the_shipped_file(capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped file on nodes as README describes them, whose CPUs are not said: the router may
    have as many replicas as it ever does."""
    file = str(ROOT / "serve_config.yaml")
    spec = "4x8xH100-80GB,2x4xL4-24GB,3x16CPU"
    assert spec in (ROOT / "README.md").read_text()
    assert main(["plan-cluster", file, "--nodes", spec, "--json"]) == 0
    rows = {r["application"]: r for r in json.loads(capsys.readouterr().out)["applications"]}
    assert (rows["router"]["min_replicas"], rows["router"]["max_replicas"]) == (1, 16)


def test_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """People read a table and why something does not fit; a bad --nodes is explained."""
    file = tmp_path / "f.yaml"
    file.write_text(yaml.safe_dump({"applications": [ROUTER, vllm("never", num_gpus=16)]}))
    assert main(["plan-cluster", str(file), "--nodes", NODES]) == 1
    text = capsys.readouterr().out
    assert "2 of 4xH100-80GB, 1 of 2xL4-24GB, 1 of 16 CPUs (as --nodes says)" in text
    assert "never does not fit: asks one node for 16 GPUs; the largest has 4" in text
    assert "At the least: 2 replicas, 16 of 10 GPUs; 1 find no room" in text
    assert main(["plan-cluster", str(file), "--nodes", "8 GPUs"]) == 1
    assert "4x8xH100-80GB" in capsys.readouterr().err


def test_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --nodes and without a cluster it is this machine, and says so."""
    monkeypatch.setenv("RAY_ADDRESS", "local")
    file = tmp_path / "f.yaml"
    file.write_text(yaml.safe_dump({"applications": [ROUTER]}))
    assert main(["plan-cluster", str(file)]) == 0
    assert "on this machine" in capsys.readouterr().out


@pytest.mark.parametrize("spec", ["", "8", "x8xH100", "8xH100-80TB", "1x8xH100,", "8x"])
def test_bad_specs(spec: str) -> None:
    """What is no description of nodes is refused."""
    with pytest.raises(ValueError, match="should be nodes such as"):
        parse(spec)


def test_specs() -> None:
    """Counts may be left out; an accelerator's memory is known by its name, and Ray's name of one
    that comes in two sizes too."""
    one, big, cpus = parse("8xL4/48CPU, 2xA100-80GB, 16CPU")
    assert (one.num_gpus, one.gpu_memory_gb, one.num_cpus) == (8, 24, 48)
    asked = {"ray_actor_options": {"num_gpus": 1, "accelerator_type": "A100-80G"}}
    assert objection(Shape.of(asked), [big]) is None
    assert (cpus.num_gpus, cpus.num_cpus) == (0, 16)


@pytest.mark.parametrize(("share", "expected"), [(0.4, 4), (0.5, 4), (0.3, 6), (1, 2), (2, 1)])
def test_parts_of_gpus(share: float, expected: int) -> None:
    """A part of a GPU is a part of one: what two GPUs have left together is no third one."""
    space, shape = Space([gpu_node("g", 2)]), Shape(({"GPU": share},), ({},))
    assert sum(space.place(shape) is not None for _ in range(10)) == expected


def test_nothing_is_taken_by_what_does_not_fit() -> None:
    """A replica that finds no room leaves no trace."""
    space = Space([gpu_node("g", 4), CPU_NODE])
    wide = Shape(tuple({"GPU": 1.0} for _ in range(5)), ({},) * 5)
    assert space.place(wide) is None
    assert space.num_free_gpus == 4
    assert space.place(Shape(({"CPU": 17.0, "GPU": 1.0},), ({},))) == ("g",)
    assert space.place(Shape(({"CPU": 17.0},), ({},)), lambda node: node is CPU_NODE) is None


def test_strategies() -> None:
    """STRICT_PACK is one node, STRICT_SPREAD as many as bundles."""
    nodes: list[Node] = [gpu_node("a", 2), gpu_node("b", 2)]
    bundles, labels = ({"GPU": 1.0},) * 3, ({},) * 3
    assert Space(nodes).place(Shape(bundles, labels, "STRICT_PACK")) is None
    assert Space(nodes).place(Shape(bundles, labels, "STRICT_SPREAD")) is None
    assert Space(nodes).place(Shape(bundles[:2], labels[:2], "STRICT_SPREAD")) == ("a", "b")
    assert Space(nodes).place(Shape(bundles[:2], labels[:2], "PACK")) == ("a",)
