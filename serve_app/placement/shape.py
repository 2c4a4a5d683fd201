"""What one replica takes, read from the options of its Serve deployment, and where it could be.

Knows nodes by what they declare. Whoever has options has them from Serve's own schema, or from
`request.py`: what they say is taken as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from serve_app.placement.node import ACCELERATOR, ACCELERATOR_PART, Node
from serve_app.placement.selector import matches

Resources = Mapping[str, float]
EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Shape:
    """`bundles` are each on one node, with the labels of the selector in the same place."""

    bundles: tuple[Resources, ...]
    selectors: tuple[Mapping[str, str], ...]
    strategy: str = "PACK"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Of a deployment's options, by Serve's names."""
        actor = options.get("ray_actor_options") or {}
        bundles = options.get("placement_group_bundles")
        if not bundles:
            return cls((_resources(actor),), (actor.get("label_selector") or {},))
        selectors = options.get("placement_group_bundle_label_selector") or [{}]
        if len(selectors) == 1:
            selectors = selectors * len(bundles)
        strategy = options.get("placement_group_strategy") or "PACK"
        return cls(tuple(bundles), tuple(selectors), strategy)

    @property
    def num_gpus(self) -> float:
        """Of the replica as a whole."""
        return sum(bundle.get("GPU", 0.0) for bundle in self.bundles)

    def __str__(self) -> str:
        gpus = f"{self.num_gpus:g} GPU{'' if self.num_gpus <= 1 else 's'}"
        if not self.num_gpus:
            return f"{sum(bundle.get('CPU', 0) for bundle in self.bundles):g} CPUs"
        if len(self.bundles) > 1:
            return f"{gpus} in {len(self.bundles)} bundles"
        return gpus if self.num_gpus <= 1 else f"{gpus} of one node"


def _resources(actor: Mapping[str, Any]) -> dict[str, float]:
    found = {
        "CPU": actor.get("num_cpus", 1.0),  # Serve's default
        "GPU": actor.get("num_gpus"),
        "memory": actor.get("memory"),
        **(actor.get("resources") or {}),
    }
    if accelerator := actor.get("accelerator_type"):
        found[ACCELERATOR + accelerator] = ACCELERATOR_PART
    return {name: float(amount) for name, amount in found.items() if amount}


def objection(shape: Shape, nodes: Sequence[Node]) -> str | None:
    """Why no replica could ever run on these nodes, empty as they may be; None if one could."""
    for bundle, selector in zip(shape.bundles, shape.selectors, strict=True):
        suited = [node for node in nodes if matches(node, selector)]
        if not suited:
            wanted = ", ".join(f"{label}: {value}" for label, value in selector.items())
            return f"no node has the labels {wanted}" if wanted else "there are no nodes"
        if not any(has(node, bundle) for node in suited):
            return next(_lacks(bundle, suited), "no node has all of it")
    return _too_many(shape, nodes)


def has(node: Node, bundle: Resources) -> bool:
    """Whether an empty node has the resources of a bundle."""
    return all(node.resources.get(name, 0) + EPSILON >= need for name, need in bundle.items())


def _lacks(bundle: Resources, nodes: Sequence[Node]) -> Iterator[str]:
    """What no node has enough of; else what none of those with the wanted accelerator has."""
    for name, need in sorted(bundle.items(), key=lambda item: item[0] != "GPU"):
        most = max(node.resources.get(name, 0) for node in nodes)
        if most + EPSILON < need:
            yield _lack(name, need, most, nodes)
    wanted = [name for name in bundle if name.startswith(ACCELERATOR)]
    having = [node for node in nodes if all(name in node.resources for name in wanted)]
    if wanted and len(having) < len(nodes):
        kind = wanted[0].removeprefix(ACCELERATOR)
        yield from (f"of those with {kind}, it {lack}" for lack in _lacks(bundle, having))


def _lack(name: str, need: float, most: float, nodes: Sequence[Node]) -> str:
    if name.startswith(ACCELERATOR):
        kinds = sorted({node.accelerator for node in nodes if node.accelerator})
        there = ", ".join(kinds) or "none that Ray names"
        return f"asks for {name.removeprefix(ACCELERATOR)} GPUs; there are {there}"
    if name == "memory":
        return f"asks one node for {need / 1e9:.1f} GB of RAM; the largest has {most / 1e9:.1f}"
    plural = {"GPU": "GPUs", "CPU": "CPUs"}.get(name, name)
    return f"asks one node for {need:g} {plural}; the largest has {most:g}"


def _too_many(shape: Shape, nodes: Sequence[Node]) -> str | None:
    """Bundles that could each be somewhere, but not all of them."""
    there = sum(node.num_gpus for node in nodes if matches(node, shape.selectors[0]))
    if shape.num_gpus > there + EPSILON:
        return f"asks for {shape.num_gpus:g} GPUs; all nodes together have {there:g}"
    return None
