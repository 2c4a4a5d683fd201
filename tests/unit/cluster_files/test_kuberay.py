"""cluster/kuberay: valid, in step with serve_config.yaml, and what our replicas ask for.

Nothing here runs Kubernetes: schemas are checked, and Ray's own reading of the manifest.
"""

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)

from serve_app.check import document, inventory
from serve_app.cli import main
from serve_app.commands import kuberay
from serve_app.draining import DRAIN_S
from serve_app.placement.cluster_plan import cluster_plan
from serve_app.placement.node import Node
from serve_app.placement.selector import matches, off_gpu_nodes
from serve_app.placement.wanted import wanted
from tests.unit.cluster_files import kubernetes as k8s

CONFIG = k8s.ROOT / "serve_config.yaml"
POOL = k8s.ROOT / "cluster" / "serve_config.ultrafeedback.yaml"
WORKERS = ("cpu", "l4", "h100")


@pytest.mark.parametrize("index", range(len(k8s.manifests())))
def test_valid_by_schema(index: int) -> None:
    """Every object is valid, without a key that its schema does not know."""
    k8s.validate(k8s.manifests()[index])


@pytest.mark.parametrize(
    "path",
    [
        ("spec", "rayClusterConfig", "enableInTreeAutoscalin"),
        ("spec", "rayClusterConfig", "gcsFaultToleranceOptions", "redisPasswort"),
        ("spec", "rayClusterConfig", "headGroupSpec", "template", "spec", "terminationGracePeriod"),
    ],
)
def test_the_schema_refuses_what_it_does_not_know(path: tuple[str, ...]) -> None:
    """A misspelt key, at whatever depth, is not passed over."""
    manifest = at = copy.deepcopy(k8s.of_kind("RayService")[0])
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = 1
    with pytest.raises(jsonschema.ValidationError):
        k8s.validate(manifest)


def test_it_embeds_serve_config() -> None:
    """`serveConfigV2` is serve_config.yaml, but for the interface and the clients' keys."""
    text = k8s.of_kind("RayService")[0]["spec"]["serveConfigV2"]
    expected = yaml.safe_load(CONFIG.read_text())
    expected["http_options"]["host"] = "0.0.0.0"
    expected["applications"][0]["args"]["api_keys_env"] = "ROUNDHOUSE_API_KEYS"
    write = "run: python -m serve_app kuberay serve_config.yaml --write"
    assert yaml.safe_load(text) == expected, write


def test_no_anchors_for_the_operator_s_parser() -> None:
    """The text has neither anchors nor merge keys."""
    text = k8s.of_kind("RayService")[0]["spec"]["serveConfigV2"]
    events = list(yaml.parse(text, Loader=yaml.SafeLoader))
    assert not [e for e in events if isinstance(e, yaml.AliasEvent) or getattr(e, "anchor", None)]


def test_the_command_puts_any_config_there(tmp_path: Path) -> None:
    """`roundhouse kuberay` writes another config into a manifest, and nothing else of it."""
    manifest = tmp_path / "rayservice.yaml"
    shutil.copy(k8s.RAYSERVICE, manifest)
    assert main(["kuberay", str(POOL), "--manifest", str(manifest), "--write"]) == 0
    written = yaml.safe_load(manifest.read_text())
    before = copy.deepcopy(k8s.of_kind("RayService")[0])
    assert yaml.safe_load(written["spec"].pop("serveConfigV2")) == yaml.safe_load(POOL.read_text())
    before["spec"].pop("serveConfigV2")
    assert written == before


def test_the_command_prints_without_writing(capsys: pytest.CaptureFixture[str]) -> None:
    """Without `--write` the manifest is printed: for serve_config.yaml, the one that is there."""
    assert main(["kuberay", str(CONFIG), "--manifest", str(k8s.RAYSERVICE)]) == 0
    assert capsys.readouterr().out == k8s.RAYSERVICE.read_text()


@pytest.mark.parametrize(
    ("config", "manifest", "said"),
    [
        ("applications: [{name: a, nam: b, import_path: x:y}]", "\n  serveConfigV2: |\n", "nam"),
        (CONFIG.read_text(), "spec: {}", "has no `serveConfigV2: |`"),
        (None, "", "No such file"),
    ],
)
def test_the_command_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: str | None, manifest: str, said: str
) -> None:
    """What `check` refuses, a manifest without the place for it, and a missing file: status 1."""
    (tmp_path / "rayservice.yaml").write_text(manifest)
    if config:
        (tmp_path / "config.yaml").write_text(config)
    paths = [str(tmp_path / "config.yaml"), "--manifest", str(tmp_path / "rayservice.yaml")]
    assert main(["kuberay", *paths, "--write"]) == 1
    assert said in capsys.readouterr().err
    assert (tmp_path / "rayservice.yaml").read_text() == manifest


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", None])
def test_pods_are_reached_from_elsewhere(host: str | None) -> None:
    """A host that only the pod itself could reach becomes every interface; another one stays."""
    config = {"http_options": {"host": host}, "applications": []}
    assert kuberay.for_pods(config)["http_options"]["host"] == "0.0.0.0"
    config = {"http_options": {"host": "10.0.0.7"}, "applications": []}
    assert kuberay.for_pods(config)["http_options"]["host"] == "10.0.0.7"


def node_types() -> dict[str, Any]:
    """The groups as the autoscaler of the installed Ray reads them from the RayCluster."""
    metadata = {"name": "roundhouse", "namespace": "roundhouse"}
    resource = {"metadata": metadata, "spec": k8s.cluster()}
    found: dict[str, Any] = _derive_autoscaling_config_from_ray_cr(resource)["available_node_types"]
    return found


def nodes() -> tuple[Node, ...]:
    """The largest cluster that the groups allow."""
    return tuple(
        Node.of_ray(f"{name}-{index}", kind["resources"], kind["labels"])
        for name, kind in node_types().items()
        for index in range(kind["max_workers"])
    )


def test_ray_reads_the_groups_as_meant() -> None:
    """The autoscaler sees a head without CPUs, and the GPUs and their kind of nodes to come."""
    kinds = node_types()
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    assert {name: kind["resources"].get("GPU") for name, kind in kinds.items()} == {
        "headgroup": None,
        "cpu": None,
        "l4": 1,
        "h100": 8,
    }
    assert [node.kind for node in nodes() if node.num_gpus] == ["1xL4-24GB"] * 4 + [
        "8xH100-80GB"
    ] * 2


def test_what_needs_no_gpu_starts_no_gpu_node() -> None:
    """The labels by which the router and API models keep off GPU nodes leave them the CPU group,
    also for the autoscaler, which goes by the groups' labels."""
    selector = off_gpu_nodes(nodes(), 0.2)
    taken = {node.name.split("-")[0] for node in nodes() if matches(node, selector)}
    assert taken == {"cpu"}


@pytest.mark.parametrize("file", [CONFIG, POOL])
def test_the_groups_hold_what_the_configs_ask_for(file: Path) -> None:
    """Every model of serve_config.yaml, and of the pool, fits the groups at its least."""
    parsed, _ = document.load(file.read_text())
    asked = inventory.read(parsed.value if parsed else None)
    assert asked is not None
    plan = cluster_plan(list(wanted(asked, nodes())), nodes(), "of the manifest")
    assert plan.fits, [row.why for row in plan.applications if row.why]
    cpu_only = [row for row in plan.applications if not row.gpus_per_replica]
    assert {name.split("-")[0] for row in cpu_only for on in row.on for name in on} <= {"cpu"}


def test_ray_s_version_is_the_locked_one() -> None:
    """`rayVersion` is the Ray that the images have."""
    version = k8s.cluster()["rayVersion"]
    for kind in ("cpu", "gpu"):
        assert f"ray=={version}" in (k8s.ROOT / f"constraints/{kind}.txt").read_text().splitlines()


def test_every_process_knows_the_fast_path() -> None:
    """What serve_config.yaml sets for all its applications is in the environment of every
    container, and a replica that is killed takes its engine along."""
    (settings,) = (m["data"] for m in k8s.of_kind("ConfigMap"))
    applications = yaml.safe_load(CONFIG.read_text())["applications"]
    environments = [app["runtime_env"]["env_vars"].items() for app in applications]
    fast = set.intersection(*map(set, environments))
    assert len(fast) > 1
    assert fast <= settings.items()
    assert settings["RAY_process_group_cleanup_enabled"] == "1"
    for template in k8s.templates().values():
        sources = k8s.container(template)["envFrom"]
        assert {"configMapRef": {"name": "roundhouse-environment"}} in sources


def test_no_secret_is_in_the_files() -> None:
    """Secrets are named, never given: no Secret, no password and no token has a value."""
    assert not k8s.of_kind("Secret")
    named = {"roundhouse-ray-token", "roundhouse-redis", "roundhouse-keys", "roundhouse-hub"}
    texts = "".join(json.dumps(manifest) for manifest in k8s.manifests())
    assert all(name in texts for name in named)
    credential = k8s.cluster()["gcsFaultToleranceOptions"]["redisPassword"]
    assert list(credential) == ["valueFrom"]
    for template in k8s.templates().values():
        for variable in k8s.container(template).get("env", []):
            assert "valueFrom" in variable or variable["name"] == "HF_HOME"


def test_token_authentication_is_on() -> None:
    """Ray's ports ask for a token, whose secret the operator knows too."""
    assert k8s.cluster()["authOptions"] == {"mode": "token", "secretName": "roundhouse-ray-token"}


@pytest.mark.parametrize("group", WORKERS)
def test_a_pod_drains_before_it_ends(group: str) -> None:
    """Kubernetes waits longer than the drain, the drain longer than replicas may take, and no
    node is taken for idle while its proxy may have streams."""
    template = k8s.templates()[group]
    command = k8s.container(template)["lifecycle"]["preStop"]["exec"]["command"]
    assert command[:4] == ["python", "-m", "serve_app", "drain"]
    limit_s = int(command[command.index("--limit-s") + 1])
    assert template["spec"]["terminationGracePeriodSeconds"] > limit_s > 2 * DRAIN_S
    assert k8s.cluster()["autoscalerOptions"]["idleTimeoutSeconds"] > limit_s


@pytest.mark.parametrize("group", ["head", *WORKERS])
def test_probes(group: str) -> None:
    """Every pod is asked whether it lives and is ready; workers take traffic only with a proxy."""
    asked = k8s.container(k8s.templates()[group])
    assert asked["livenessProbe"]["httpGet"]["path"] == "/api/healthz"
    ready = {"path": "/-/healthz", "port": 8000} if group != "head" else None
    assert asked["readinessProbe"]["httpGet"] == (ready or {"path": "/api/healthz", "port": 52365})
    assert {"name": "serve", "containerPort": 8000} in asked["ports"]


@pytest.mark.parametrize("template", k8s.templates().values(), ids=k8s.templates())
def test_no_container_needs_root(template: dict[str, Any]) -> None:
    """Pods run as a user, without privileges or capabilities."""
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    of_container = k8s.container(template)["securityContext"]
    assert of_container["allowPrivilegeEscalation"] is False
    assert of_container["capabilities"] == {"drop": ["ALL"]}


def test_only_cpu_pods_know_the_keys() -> None:
    """The clients' and the upstreams' keys are in no pod that runs a model's code."""
    has = {
        group: {source.get("secretRef", {}).get("name") for source in k8s.container(t)["envFrom"]}
        for group, t in k8s.templates().items()
    }
    assert [group for group, names in has.items() if "roundhouse-keys" in names] == ["cpu"]


def test_budgets_say_what_kubernetes_can_keep() -> None:
    """Ray's pods have budgets in whole numbers of `minAvailable`, the only ones that hold without a
    scale subresource, and every budget and policy selects some pod."""
    pods = [t["metadata"]["labels"] for t in k8s.templates().values()]
    pods += [s["spec"]["template"]["metadata"]["labels"] for s in k8s.of_kind("StatefulSet")]
    for budget in k8s.of_kind("PodDisruptionBudget"):
        wanted_labels = budget["spec"]["selector"]["matchLabels"]
        if "roundhouse/group" in wanted_labels:
            assert isinstance(budget["spec"]["minAvailable"], int)
        assert any(wanted_labels.items() <= labels.items() for labels in pods)
    for policy in k8s.of_kind("NetworkPolicy"):
        selected = policy["spec"]["podSelector"]["matchLabels"]
        assert any(selected.items() <= labels.items() for labels in pods)


def test_clients_reach_http_and_nothing_else() -> None:
    """Of Ray's ports a namespace of clients reaches one, and a namespace without a label none."""
    (policy,) = (
        p for p in k8s.of_kind("NetworkPolicy") if p["metadata"]["name"] == "roundhouse-ray"
    )
    for rule in policy["spec"]["ingress"]:
        for peer in rule["from"]:
            labels = peer.get("namespaceSelector", {}).get("matchLabels")
            assert peer.get("podSelector") or labels
            if labels == {"roundhouse/clients": "true"}:
                assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]


def test_monitoring_reaches_what_it_looks_for() -> None:
    """The ports that Prometheus keeps by their names are there, and its namespaces reach them."""
    jobs = yaml.safe_load((k8s.ROOT / "cluster/prometheus/prometheus.kuberay.yml").read_text())
    rules = jobs["scrape_configs"][0]["relabel_configs"]
    (names,) = (r["regex"] for r in rules if "port_name" in r["source_labels"][0])
    named = {
        port["name"]: port["containerPort"]
        for template in k8s.templates().values()
        for port in k8s.container(template)["ports"]
    }
    policies = k8s.of_kind("NetworkPolicy")
    ingress = [rule for policy in policies for rule in policy["spec"]["ingress"]]
    allowed = {
        port["port"]
        for rule in ingress
        for peer in rule["from"]
        if "roundhouse/monitoring" in str(peer)
        for port in rule["ports"]
    }
    assert {named[name] for name in names.split("|")} <= allowed


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
def test_kustomize_builds_it() -> None:
    """`kubectl apply -k` finds every file, and puts the images' registry in."""
    command = ["kubectl", "kustomize", str(k8s.FOLDER)]
    built = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    found = [manifest for manifest in yaml.safe_load_all(built) if manifest]
    assert len(found) == len(k8s.manifests())
    assert built.count("image: registry.example.com/roundhouse-") == len(k8s.templates())
