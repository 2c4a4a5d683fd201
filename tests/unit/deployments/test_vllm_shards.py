"""vLLM in two processes that share each layer: the same answers as in one. Run with -m slow."""

import asyncio

import pytest

from deployments import backends
from tests.contract.asking import ask, saying
from tests.contract.subjects import Subject, generated_tokens, rendered_tokens, repeat, started

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PROMPTS = ("lantern", "river stone", "seven birds over the roundhouse")


async def answers(tensor_parallel_size: int) -> list[str]:
    args = {"model_type": "demo", "backend": "vllm", "num_gpus": 0, "max_model_len": 128}
    config = backends.configure({**args, "tensor_parallel_size": tensor_parallel_size})
    async with started(backends.build("subject", config)) as backend:
        subject = Subject("vllm", backend, backend, repeat, rendered_tokens, generated_tokens)
        asked = (ask(backend, saying(subject, prompt, temperature=0)) for prompt in PROMPTS)
        return [answer.text for answer in await asyncio.gather(*asked)]


async def test_two_shards_answer_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tensor_parallel_size: 2` gives the answers of 1."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # else each shard wants a NUMA node
    one = await answers(1)
    assert one[0].strip() == "lantern"
    assert await answers(2) == one
