"""How fast the link to the GPU is, and how long the GPU works."""

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")


def pinned_bytes_per_s() -> float:
    """The best of a few copies of a gigabyte from pinned memory."""
    from deployments.huggingface.streaming.ring import allocate

    source = allocate(2**30, is_pinned=True)
    target = torch.empty(2**30, dtype=torch.uint8, device="cuda")

    def copy() -> None:
        for _ in range(4):
            target.copy_(source, non_blocking=True)

    copy()
    return float(max(4 * 2**30 / timed(copy) for _ in range(3)))


def timed(action: Callable[[], object]) -> float:
    """Seconds of the device's work."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    action()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000
