import copy
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from deployments.huggingface.engine import prefetch

from .operations import Operations


class Layers(nn.Sequential):
    """What `install` asks of a model."""

    device = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """torch has one thread, as under Ray by default."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def layers() -> Layers:
    """Two small weights and a larger one, without hooks."""
    torch.manual_seed(0)
    return Layers(nn.Linear(64, 512), nn.Linear(512, 512), nn.Linear(512, 513))


def read(model: Layers, num_rows: int) -> list[int]:
    """Which of the layers have their weights read beforehand, each as often as it is."""
    addresses = [layer.weight.data_ptr() for layer in model]
    with torch.inference_mode(), Operations() as seen:
        model(torch.randn(num_rows, 1, 64))
    return [addresses.index(address) for address in seen.on("sum")]


@pytest.mark.parametrize(
    ("num_rows", "layers_read"), [(1, []), (2, [0, 1]), (32, [0, 1]), (33, [])]
)
def test_small_weights_are_read_once_before_few_rows(num_rows: int, layers_read: list[int]) -> None:
    """What fits into a core's cache is read before 2 to 32 rows meet it, once however often a
    model is taken in hand; nothing is for one row, or for many."""
    model = layers()
    prefetch.install(model)
    prefetch.install(model)  # as the engine's decoder, after the loader's
    assert read(model, num_rows) == layers_read


def test_no_bit_changes() -> None:
    """A model with its weights read beforehand says exactly what it says without."""
    model, states = layers(), torch.randn(7, 1, 64)
    before = model(states)
    prefetch.install(model)
    assert torch.equal(model(states), before)


def test_other_models_are_left_alone() -> None:
    """Nothing is read twice on several threads, on another device, or in half precision."""
    on_gpu, half = layers(), layers().to(torch.bfloat16)
    on_gpu.device = torch.device("cuda")
    prefetch.install(on_gpu)
    prefetch.install(half)
    torch.set_num_threads(2)
    on_threads = layers()
    prefetch.install(on_threads)
    kinds = {type(layer) for model in (on_gpu, half, on_threads) for layer in model}
    assert kinds == {nn.Linear}


def test_weights_that_come_and_go_are_read_when_they_are_there() -> None:
    """What is read is what a layer has at a pass; of a weight that is elsewhere nothing is, and
    what stands in for such a layer, as accelerate's hooks do, runs in its place."""
    model = layers()
    prefetch.install(model)
    first = model[0]
    first.weight = nn.Parameter(torch.empty((512, 64), device="meta"))
    first.forward = lambda states: states.new_zeros((*states.shape[:-1], 512))  # type: ignore[method-assign]
    assert read(model, 4) == [1]
    del first.forward
    first.weight = nn.Parameter(torch.ones(512, 64))
    assert read(model, 4) == [0, 1]


def test_a_copy_has_its_own_weights() -> None:
    """A layer that is copied, as PEFT copies those that an adapter replaces, is one that reads, and
    multiplies with, what the copy has; nothing of a model is kept alive."""
    model = layers()
    prefetch.install(model)
    copied = copy.deepcopy(model)
    nn.init.zeros_(copied[0].weight)
    nn.init.zeros_(copied[0].bias)
    assert not copied[0](torch.ones(4, 64)).any()
    assert read(copied, 4) == [0, 1]
    weight = weakref.ref(model[0].weight)
    del model
    assert weight() is None
