"""A program: `python -m serve_app.check.cluster HOST:PORT` prints the nodes of a running cluster:
a JSON list of their ids, resources and labels.

`nodes.py` runs it in a process of its own, and says why. Connects to nothing but that address.
"""

import json
import sys

from ray._raylet import GcsClient  # type: ignore[attr-defined]  # its stub leaves this out

TIMEOUT_S = 4
ALIVE = 0  # gcs.proto, GcsNodeInfo.GcsNodeState

if __name__ == "__main__":
    nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=TIMEOUT_S).values()
    told = [
        (node.node_id.hex(), dict(node.resources_total), dict(node.labels))
        for node in nodes
        if node.state == ALIVE
    ]
    print(json.dumps(told))
