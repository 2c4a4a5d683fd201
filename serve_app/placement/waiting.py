"""Why a replica is not placed: whether it only waits for others to go, or could never run here.

Serve tells what a replica asks for only in the text of a warning, half a minute after it began to
wait; where that text is another one day, it is shown as it is.
"""

import json
import re
from collections.abc import Sequence
from typing import Literal

from serve_app.placement.node import Node
from serve_app.placement.shape import Shape, objection

ASKED = re.compile(r"Resources required for each replica: ([\[{].*?[\]}]), total resources")


def asked(message: str) -> Shape | None:
    """What each replica asks for, where Serve's message says that some wait for it."""
    match = ASKED.search(message)
    try:
        resources = json.loads(match[1]) if match else None
    except ValueError:
        return None
    if not resources:
        return None
    bundles = resources if isinstance(resources, list) else [resources]
    return Shape(tuple(bundles), ({},) * len(bundles))


def explained(shape: Shape, nodes: Sequence[Node]) -> tuple[str, Literal["failed", "warming"]]:
    """The reason, and the state: what no node could hold, nor any that the autoscaler could add,
    has failed; Serve still places it if such a node comes."""
    why = objection(shape, nodes)
    if why is not None:
        return f"It does not fit the cluster: it {why}.", "failed"
    return f"It waits for room: {shape}, with labels as its args say, are not free now.", "warming"
