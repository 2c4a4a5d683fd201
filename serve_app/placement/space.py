"""Nodes being filled with replicas, as Ray would: what is free, GPU by GPU, and what is taken.

Best fit, one replica at a time: a plan of what is possible, not a promise of where Ray puts it.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Self

from serve_app.placement.node import Node
from serve_app.placement.selector import matches
from serve_app.placement.shape import EPSILON, Resources, Shape


class Room:
    """What is free on one node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._gpus = [1.0] * int(node.num_gpus)  # a part of a GPU is a part of one, not of two
        self._others = {name: size for name, size in node.resources.items() if name != "GPU"}

    @property
    def num_free_gpus(self) -> float:
        return sum(self._gpus)

    def take(self, bundle: Resources) -> bool:
        """Takes it all, or nothing."""
        others = {name: need for name, need in bundle.items() if name != "GPU"}
        if any(self._others.get(name, 0) + EPSILON < need for name, need in others.items()):
            return False
        if not self._take_gpus(bundle.get("GPU", 0.0)):
            return False
        for name, need in others.items():
            self._others[name] -= need
        return True

    def _take_gpus(self, need: float) -> bool:
        if need < 1:
            fitting = [free for free in self._gpus if free + EPSILON >= need]
            if need and fitting:
                self._gpus[self._gpus.index(min(fitting))] -= need
            return bool(fitting) or not need
        whole = [index for index, free in enumerate(self._gpus) if free + EPSILON >= 1]
        for index in whole[: int(need)]:
            self._gpus[index] = 0.0
        if len(whole) >= need:
            return True
        for index in whole:
            self._gpus[index] = 1.0
        return False


class Space:
    """All nodes."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._rooms = [Room(node) for node in nodes]

    @property
    def num_free_gpus(self) -> float:
        return sum(room.num_free_gpus for room in self._rooms)

    def place(
        self, shape: Shape, suits: Callable[[Node], bool] = lambda _: True
    ) -> tuple[str, ...] | None:
        """The names of the nodes that one more replica is on, of those that suit it; None, and
        nothing taken, where there is no room."""
        trial = self._copy()
        rooms = [room for room in trial._rooms if suits(room.node)]
        taken = trial._on_one(shape, rooms) or trial._on_many(shape, rooms)
        if taken is not None:
            self._rooms = trial._rooms
        return taken

    def _on_one(self, shape: Shape, rooms: list[Room]) -> tuple[str, ...] | None:
        """On the node that has least to spare."""
        if shape.strategy == "STRICT_SPREAD" and len(shape.bundles) > 1:
            return None
        for room in sorted(rooms, key=lambda room: (room.num_free_gpus, room.node.num_gpus)):
            trial = copy.deepcopy(room)
            if all(matches(room.node, selector) for selector in shape.selectors) and all(
                trial.take(bundle) for bundle in shape.bundles
            ):
                self._rooms[self._rooms.index(room)] = trial
                return (room.node.name,)
        return None

    def _on_many(self, shape: Shape, rooms: list[Room]) -> tuple[str, ...] | None:
        """On as few nodes as filling the emptiest ones first gives."""
        if len(shape.bundles) == 1 or shape.strategy == "STRICT_PACK":
            return None
        ordered = sorted(rooms, key=lambda room: -room.num_free_gpus)
        used: list[str] = []
        for bundle, selector in zip(shape.bundles, shape.selectors, strict=True):
            free = [room for room in ordered if matches(room.node, selector)]
            if shape.strategy == "STRICT_SPREAD":
                free = [room for room in free if room.node.name not in used]
            taker = next((room for room in free if room.take(bundle)), None)
            if taker is None:
                return None
            if taker.node.name not in used:
                used.append(taker.node.name)
        return tuple(used)

    def _copy(self) -> Self:
        return copy.deepcopy(self)
