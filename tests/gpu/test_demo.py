"""The demo model on a GPU: the same answers as on a CPU, and the weights where they belong."""

import asyncio
from importlib.util import find_spec

import pytest

from tests.contract.asking import ask, saying
from tests.contract.subjects import GENERATING, SUBJECTS

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
KINDS = [kind for kind in GENERATING if kind != "vllm" or find_spec("vllm")]


@pytest.mark.parametrize("kind", KINDS)
async def test_answers(kind: str) -> None:
    """The engine answers from the GPU, streamed or not, and frees its slot."""
    before = torch.cuda.mem_get_info()[0]
    async with SUBJECTS[kind]() as subject:
        assert torch.cuda.mem_get_info()[0] < before
        for stream in (False, True):
            answered = await ask(subject.backend, saying(subject, "lantern", stream=stream))
            assert answered.text.strip() == "lantern"
        assert subject.backend.num_running == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_json_schema(kind: str) -> None:
    """Masks of grammars apply on the GPU, to their own rows of a batch."""
    schema = {"enum": ["lantern"]}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    async with SUBJECTS[kind]() as subject:
        plain, formatted = await asyncio.gather(
            ask(subject.backend, saying(subject, "river")),
            ask(subject.backend, saying(subject, "river", response_format=form)),
        )
    assert (plain.text.strip(), formatted.text) == ("river", '"lantern"')
