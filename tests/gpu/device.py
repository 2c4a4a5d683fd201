"""Where these tests run: on a GPU; or in small on a CPU, so that they can be tried without one.

    ROUNDHOUSE_GPU_TESTS_ON=cpu pytest -m gpu tests/gpu/test_speed.py

tries every line that a GPU would, and judges no speed.
"""

import os
from typing import TypeVar

import pytest

torch = pytest.importorskip("torch")

DEVICE = os.environ.get("ROUNDHOUSE_GPU_TESTS_ON", "cuda")
ON_GPU = DEVICE == "cuda"
Size = TypeVar("Size")

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="needs a GPU"),
]


def sized(on_gpu: Size, on_cpu: Size) -> Size:
    """The one or the other."""
    return on_gpu if ON_GPU else on_cpu


def wait_for_device() -> None:
    """Returns when the device has done all that it was given."""
    if ON_GPU:
        torch.cuda.synchronize()
