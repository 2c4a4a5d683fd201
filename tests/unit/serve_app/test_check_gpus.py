"""`check` on GPUs: what no node could give is refused, and where the number of them comes from."""

import pytest

from serve_app.check.nodes import Node, largest_node
from serve_app.check.report import Finding, check

FILE = """\
applications:
- {name: router, route_prefix: /, import_path: "serve_app.app:router"}
- name: demo
  route_prefix: null
  import_path: serve_app.app:model
  args:
    model_type: demo
    backend: vllm
    # ARGS
  deployments:
  - name: vllm
    # OPTIONS
"""


def findings(args: str, options: str, num_gpus: float | None) -> tuple[Finding, ...]:
    text = FILE.replace("# ARGS", args).replace("# OPTIONS", options)
    return check("f", text, None if num_gpus is None else Node(num_gpus, "here")).findings


@pytest.mark.parametrize(
    ("args", "options", "num_gpus", "line", "message"),
    [
        ("num_gpus: 1", "", 0, 9, "asks one node for 1 GPUs; the largest has 0, here"),
        ("num_gpus: 0.5", "", 0, 9, "asks one node for 0.5 GPUs"),
        ("num_gpus: 9", "", 8, 9, "the largest has 8"),
        ("num_gpus: 1.5", "", 8, 9, "a whole number"),
        ("num_gpus: 1.5", "", None, 9, "a whole number"),
        ("tensor_parallel_size: 4", "", 2, 9, "asks one node for 4 GPUs"),
        ("", "ray_actor_options: {num_gpus: 4}", 2, 12, "asks one node for 4 GPUs"),
        ("", "placement_group_bundles: [{CPU: 1}, {GPU: 4}]", 2, 12, "asks one node for 4 GPUs"),
        ("pipeline_parallel_size: 4", "", 0, 9, "asks one node for 1 GPUs"),
        ("num_gpus: 2", "ray_actor_options: {num_cpus: 4}", 8, 12, "add `num_gpus: 2` (or 0)"),
        ("", "ray_actor_options: {num_cpus: 4}", 8, 12, "add `num_gpus: 0.4` (or 0)"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(
    args: str, options: str, num_gpus: float | None, line: int, message: str
) -> None:
    """A request for GPUs that no node has, or that Serve would lose, is told on its line."""
    (found,) = findings(args, options, num_gpus)
    assert found.line == line
    assert message in found.message


@pytest.mark.parametrize(
    ("args", "options", "num_gpus"),
    [
        ("", "", 0),
        ("num_gpus: 8", "", 8),
        ("num_gpus: 8", "", None),
        ("num_gpus: 0\n    tensor_parallel_size: 2", "", 0),
        ("num_gpus: 8", "ray_actor_options: {num_gpus: 1}", 1),
        ("pipeline_parallel_size: 4", "", 1),
        ("pipeline_parallel_size: 4", "ray_actor_options: {num_cpus: 0.2}", 1),
        ("", "ray_actor_options: {num_cpus: 4}", 0),
    ],
)
def test_a_request_that_can_be_met_passes(args: str, options: str, num_gpus: float | None) -> None:
    """A request that a node has room for passes; so does any where nothing is known of the nodes,
    and a model that takes a GPU only where there is one."""
    assert findings(args, options, num_gpus) == ()


def test_the_operator_knows_best() -> None:
    """What --gpus-per-node says is believed before any cluster is asked."""
    node = largest_node(16)
    assert node is not None
    assert node.num_gpus == 16


def test_a_named_cluster_that_does_not_answer_leaves_the_gpus_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RAY_ADDRESS of a dead cluster neither hangs the check nor passes this machine off for it."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert largest_node(None) is None


def test_no_cluster_means_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cluster the GPUs are those of this machine that its processes may see."""
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert largest_node(None) == Node(0, "on this machine")


def test_checking_starts_no_ray() -> None:
    """A check starts no Ray, in this process or beside it."""
    import ray

    assert not ray.is_initialized()
    check("f", FILE, Node(0, "here"))
    assert not ray.is_initialized()
