"""What adapters take beside the model that they belong to."""

from pathlib import Path

from deployments.adapters import ADAPTER_PICKLE, ADAPTER_WEIGHTS, read_adapter_config
from deployments.placement.header import read_header

ELEMENT_BYTES = 4  # PEFT holds them in float32, whatever the files and the model have


def adapter_bytes(folder: Path) -> int:
    """The bytes of an adapter in memory. Raises: StartError for what is none, or damaged."""
    read_adapter_config(str(folder), folder)
    weights, pickle = folder / ADAPTER_WEIGHTS, folder / ADAPTER_PICKLE
    if weights.is_file():
        return ELEMENT_BYTES * sum(tensor.num_elements for tensor in read_header(weights))
    # At the most: of half precision, since no pickle is opened only to be counted.
    return 2 * pickle.stat().st_size if pickle.is_file() else 0
