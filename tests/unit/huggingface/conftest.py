"""The checkpoints and backends that the tests share."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import torch

from deployments.huggingface.backend import HuggingFaceBackend

from .asking import RECITED, started
from .gate import Gate, gated
from .models import save_random, save_reciter

torch.set_num_threads(1)  # tiny models are slower on more, and the machine is shared


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random(tmp_path_factory.mktemp("random"))


@pytest.fixture
async def random_backend(random_checkpoint: Path) -> AsyncIterator[HuggingFaceBackend]:
    async with started(random_checkpoint) as backend:
        yield backend


@pytest.fixture(scope="session")
def reciter_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reciter(tmp_path_factory.mktemp("reciter"), RECITED)


@pytest.fixture
async def reciter(reciter_checkpoint: Path) -> AsyncIterator[HuggingFaceBackend]:
    async with started(reciter_checkpoint) as backend:
        yield backend


@pytest.fixture
def gate() -> Iterator[Gate]:
    with gated() as gate:
        yield gate
