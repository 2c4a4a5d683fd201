"""The planner's numbers against what transformers and the engine really allocate."""

from typing import Any

import pytest
import torch

from deployments.huggingface.engine import cache as caches
from deployments.huggingface.engine.decoder import Decoder
from deployments.huggingface.engine.room import Size
from deployments.placement import workload as planned
from deployments.placement.demand import Model, demand
from deployments.placement.source import from_folder
from deployments.placement.workload import Workload

from .allocations import Allocations
from .architectures import KINDS, save

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # gpt_bigcode

CHUNK = 32
# The bound is no wilder than this, lest it refuse what would fit.
HEADROOM = 4


@pytest.fixture(params=[*KINDS], scope="module")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model, and the checkpoint it was saved as."""
    folder = tmp_path_factory.mktemp(request.param)
    return save(request.param, folder), from_folder(folder)


def run(model: Any, batch: int, context: int) -> Any:
    """The widest that the engine does: the cache after rows have joined and all took a step."""
    decoder, whole, first = Decoder(model), None, torch.tensor([0])
    ids = torch.randint(0, 200, (1, context - 1))
    for num_rows in range(batch):
        cache = None
        for start in range(0, context - 1, CHUNK):
            end = min(start + CHUNK, context - 1)
            mask = torch.ones((1, end), dtype=torch.long)
            _, cache = decoder.forward(ids[:, start:end], mask, cache)
        if whole is None:
            whole = cache
            caches.be_roomy(whole)
        else:
            caches.make_room(whole, Size(num_rows + 1, context - 1), 2**60)
            caches.join(whole, cache, first, is_last=True)
    one = torch.ones((batch, 1), dtype=torch.long)
    return decoder.forward(one, torch.ones((batch, context), dtype=torch.long), whole)[1]


def cached_bytes(cache: Any) -> int:
    return caches.num_bytes(cache)


def test_weights(loaded: tuple[Any, Model]) -> None:
    """The planned bytes of the weights are those of the loaded parameters, to the byte."""
    model, checkpoint = loaded
    parameters = {weight.data_ptr(): weight for weight in model.parameters()}.values()
    assert checkpoint.geometry.num_layers == model.config.num_hidden_layers
    assert demand(checkpoint, "none", Workload()).weight_bytes == sum(
        weight.numel() * weight.element_size() for weight in parameters
    )


@pytest.mark.parametrize(("batch", "context"), [(1, 96), (8, 96)])
def test_working_memory(loaded: tuple[Any, Model], batch: int, context: int) -> None:
    """Keys, values, activations and logits together stay within the plan, and fill a
    quarter of it even in so small a model. A token takes exactly what is planned."""
    model, checkpoint = loaded
    asked = checkpoint.working(Workload(batch, context, CHUNK))
    with torch.inference_mode(), Allocations() as seen:
        cache = run(model, batch, context)
    assert caches.bytes_per_token(cache) == planned.cache_bytes_per_token(checkpoint.geometry, 4)
    assert cached_bytes(cache) <= asked.cache_bytes
    planned_bytes = asked.total_bytes + asked.joining_bytes
    assert seen.peak_bytes <= planned_bytes <= HEADROOM * seen.peak_bytes
