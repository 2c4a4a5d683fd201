"""The manifests of cluster/kuberay, and the schemas that they are held against."""

import functools
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from referencing import Registry, Resource

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "cluster" / "kuberay"
RAYSERVICE = FOLDER / "rayservice.yaml"
SCHEMA = Path(__file__).parent / "rayservice.schema.yaml"
KUBERNETES = "1.34"
GROUPS = {  # of Kubernetes' own API, as its definitions name them
    "v1": "io.k8s.api.core.v1",
    "apps/v1": "io.k8s.api.apps.v1",
    "policy/v1": "io.k8s.api.policy.v1",
    "networking.k8s.io/v1": "io.k8s.api.networking.v1",
}

Manifest = dict[str, Any]


@functools.cache
def manifests() -> tuple[Manifest, ...]:
    """All that `kubectl apply -k` would apply, before kustomize's changes; not to be changed."""
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    texts = [(FOLDER / name).read_text() for name in listed]
    return tuple(found for text in texts for found in yaml.load_all(text, yaml.CSafeLoader))


def of_kind(kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests() if manifest["kind"] == kind]


def cluster() -> Manifest:
    """The RayCluster's spec."""
    found: Manifest = of_kind("RayService")[0]["spec"]["rayClusterConfig"]
    return found


def templates() -> dict[str, Manifest]:
    """The pod templates by group."""
    spec = cluster()
    groups = {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"], **groups}


def container(template: Manifest) -> Manifest:
    """Ray's, which is the first."""
    found: Manifest = template["spec"]["containers"][0]
    return found


def validate(manifest: Manifest) -> None:
    """Raises jsonschema.ValidationError, also for a key that is not in the schema."""
    kind, version = manifest["kind"], manifest["apiVersion"]
    schema = (
        _rayservice() if kind == "RayService" else {"$ref": f"k8s#/$defs/{GROUPS[version]}.{kind}"}
    )
    schema = {"$id": "https://ray.io/v1/rayservice", **schema}
    jsonschema.Draft202012Validator(schema, registry=_registry()).validate(manifest)


def _rayservice() -> Manifest:
    found: Manifest = yaml.safe_load(SCHEMA.read_text())
    return found


@functools.cache
def _registry() -> Any:
    folder = resources.files(kubernetes_validate) / "kubernetes-json-schema"
    definitions = folder / f"v{KUBERNETES}.0-local-strict" / "_definitions.json"
    kubernetes = Resource.from_contents(json.loads(definitions.read_text()))
    registry: Any = Registry()
    return registry.with_resource("https://ray.io/v1/k8s", kubernetes)
