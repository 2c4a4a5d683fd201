"""Which model lands where, what does not fit and why, and what the ranges of replicas would need.

Largest replicas first, each range at its least, then at its most.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from deployments.config import Config
from serve_app.placement.node import Node
from serve_app.placement.shape import objection
from serve_app.placement.space import Space
from serve_app.placement.wanted import Wanted


class Row(Config):
    """One application. `on` has the nodes of each of its least replicas, one after the other."""

    application: str
    deployment: str
    replica: str
    gpus_per_replica: float
    min_replicas: int
    max_replicas: int
    min_fitting: int
    max_fitting: int
    on: tuple[tuple[str, ...], ...]
    fits: bool
    why: str | None = None
    warning: str | None = None


class Level(Config):
    """All ranges at their least, or at their most."""

    replicas: int
    replicas_without_room: int
    gpus: float


class ClusterPlan(Config):
    """`fits`: every model could run, and all of them at once at their least."""

    nodes: dict[str, int]
    nodes_known: str
    gpus: float
    fits: bool
    applications: tuple[Row, ...]
    minimum: Level
    maximum: Level


Placed = dict[str, list[tuple[str, ...]]]


def cluster_plan(asked: Sequence[Wanted], nodes: Sequence[Node], nodes_known: str) -> ClusterPlan:
    """The plan for nodes that hold nothing else; `nodes_known` says who says that there are."""
    least = _fill(asked, nodes, [each.min_replicas for each in asked])
    most = _fill(asked, nodes, [each.max_replicas for each in asked])
    rows = tuple(_row(each, nodes, least, most) for each in asked)
    return ClusterPlan(
        nodes=dict(Counter(node.kind for node in nodes)),
        nodes_known=nodes_known,
        gpus=sum(node.num_gpus for node in nodes),
        fits=all(row.fits for row in rows),
        applications=rows,
        minimum=_level(asked, [each.min_replicas for each in asked], least),
        maximum=_level(asked, [each.max_replicas for each in asked], most),
    )


def _fill(asked: Sequence[Wanted], nodes: Sequence[Node], numbers: Sequence[int]) -> Placed:
    """One replica of each in turn, the largest first, so that none crowds out another."""
    space = Space(nodes)
    placed: Placed = {each.application: [] for each in asked}
    order = sorted(
        zip(asked, numbers, strict=True),
        key=lambda pair: (len(pair[0].shape.bundles), pair[0].shape.num_gpus),
        reverse=True,
    )
    for turn in range(max(numbers, default=0)):
        for each, number in order:
            full = len(placed[each.application]) < turn
            if turn < number and not full and (on := space.place(each.shape, each.suits)):
                placed[each.application].append(on)
    return placed


def _row(each: Wanted, nodes: Sequence[Node], least: Placed, most: Placed) -> Row:
    on = tuple(least[each.application])
    why = _never(each, nodes)
    if why is None and len(on) < each.min_replicas:
        why = f"of {each.min_replicas} replicas at the least, there is room for {len(on)}"
    return Row(
        application=each.application,
        deployment=each.deployment,
        replica=str(each.shape),
        gpus_per_replica=each.shape.num_gpus,
        min_replicas=each.min_replicas,
        max_replicas=each.max_replicas,
        min_fitting=len(on),
        max_fitting=len(most[each.application]),
        on=on,
        fits=why is None,
        why=why,
        warning=None if why else _warning(each, nodes),
    )


def _never(each: Wanted, nodes: Sequence[Node]) -> str | None:
    """Why not even one replica could run on the empty cluster."""
    if why := objection(each.shape, nodes):
        return why
    if Space(nodes).place(each.shape, each.suits):
        return None
    if Space(nodes).place(each.shape):
        return f"its weights need GPUs of {each.gpu_gb:.0f} GB; those it asks for are smaller"
    return "its bundles do not fit beside each other"


def _warning(each: Wanted, nodes: Sequence[Node]) -> str | None:
    """Ray places by numbers of GPUs, and knows nothing of their memory."""
    small = [node for node in nodes if not each.suits(node)]
    if not small or not Space(small).place(each.shape):
        return None
    kinds = _listed(node.kind for node in small)
    return (
        f"Ray may put it on {kinds}, where its weights do not fit (GPUs of {each.gpu_gb:.0f} GB "
        "do): set `accelerator_type`"
    )


def _level(asked: Sequence[Wanted], numbers: Sequence[int], placed: Placed) -> Level:
    gpus = sum(each.shape.num_gpus * n for each, n in zip(asked, numbers, strict=True))
    without = sum(numbers) - sum(map(len, placed.values()))
    return Level(replicas=sum(numbers), replicas_without_room=without, gpus=round(gpus, 3))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def as_text(plan: ClusterPlan, file: str) -> str:
    """A table, what is wrong, and the two ends of the ranges."""
    nodes = ", ".join(f"{count} of {kind}" for kind, count in plan.nodes.items())
    lines = [f"{file} on {nodes} ({plan.nodes_known})", "", *_table(plan.applications), ""]
    for row in plan.applications:
        if row.why:
            lines.append(f"{row.application} does not fit: {row.why}")
        if row.warning:
            lines.append(f"{row.application}: {row.warning}")
    for name, level in (("least", plan.minimum), ("most", plan.maximum)):
        room = f"; {level.replicas_without_room} find no room" * bool(level.replicas_without_room)
        lines.append(
            f"At the {name}: {level.replicas} replicas, {level.gpus:g} of {plan.gpus:g} GPUs{room}"
        )
    return "\n".join(lines)


HEADINGS = ("APPLICATION", "A REPLICA TAKES", "MIN", "MAX", "FIT", "THE LEAST ARE ON")


def _table(rows: Sequence[Row]) -> list[str]:
    cells = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _cells(row: Row) -> tuple[str, ...]:
    on = Counter("+".join(nodes) for nodes in row.on)
    where = ", ".join(f"{nodes} ({n})" if n > 1 else nodes for nodes, n in on.items())
    numbers = (str(row.min_replicas), str(row.max_replicas), str(row.max_fitting))
    return (row.application, row.replica, *numbers, where or "-")
