"""Nodes for the tests of placement."""

from serve_app.placement.node import ACCELERATOR, ACCELERATOR_LABEL, NODE_ID_LABEL, Node

CPU_NODE = Node("c", {"CPU": 16.0}, {NODE_ID_LABEL: "c"})
HEAD = Node("h", {"memory": 1e9}, {NODE_ID_LABEL: "h"})


def gpu_node(name: str, num_gpus: float, accelerator: str = "H100", labelled: bool = True) -> Node:
    resources = {"CPU": 32.0, "GPU": num_gpus, ACCELERATOR + accelerator: 1.0}
    labels = {ACCELERATOR_LABEL: accelerator} if labelled else {}
    return Node(name, resources, {NODE_ID_LABEL: name, **labels})
