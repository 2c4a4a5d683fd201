"""The part of a GPU that a Hugging Face model shares, on a GPU."""

from collections.abc import Iterator

import pytest

from deployments.config import HuggingFaceConfig
from deployments.huggingface.loading.booking import enforce

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
SHARE = 0.25


@pytest.fixture
def shared() -> Iterator[int]:
    """A process that has its share of the GPU, and how large the whole is."""
    enforce(HuggingFaceConfig(checkpoint="package:demo/model", gpu_share=SHARE))
    yield torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_no_more_than_the_share_can_be_allocated(shared: int) -> None:
    """What goes beyond the share is refused, although the GPU has room; what is within is not."""
    from deployments.huggingface.loading.memory import free_gpu_bytes

    device = torch.device("cuda", 0)
    assert free_gpu_bytes(device) <= SHARE * shared
    torch.empty(int(SHARE * shared / 2), dtype=torch.uint8, device=device)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        torch.empty(int(SHARE * shared * 1.1), dtype=torch.uint8, device=device)
