"""A program: `python -m serve_app.check.cluster HOST:PORT` prints the GPUs of the largest node,
and behind a space Ray's name for them, if it has one.

`nodes.py` runs it in a process of its own, and says why. Connects to nothing but that address.
"""

import sys

from ray._raylet import GcsClient  # type: ignore[attr-defined]  # its stub leaves this out

TIMEOUT_S = 4
ALIVE = 0  # gcs.proto, GcsNodeInfo.GcsNodeState

ACCELERATOR = "accelerator_type:"  # ray.util.accelerators, as a resource

if __name__ == "__main__":
    nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=TIMEOUT_S).values()
    alive = [node.resources_total for node in nodes if node.state == ALIVE]
    largest = max(alive, key=lambda resources: resources.get("GPU", 0.0))
    names = [name.removeprefix(ACCELERATOR) for name in largest if name.startswith(ACCELERATOR)]
    print(largest.get("GPU", 0.0), *names[:1])
