"""The engine beside `generate` and transformers' own continuous batching, on a GPU.

A Llama of 1.2 B random parameters in bfloat16: what it says means nothing, what it costs does.
`pytest -m gpu tests/gpu/test_speed.py -s` prints the figures.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from demo.checkpoint import MODEL_DIR

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

NUM_REQUESTS, NUM_REPETITIONS = 32, 3
SIZES = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 20,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
    "vocab_size": 1024,  # the demo's, whose tokenizer makes text of it
    "eos_token_id": None,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights, saved once: every contender gets a model of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    with torch.device("cuda"):
        model = LlamaForCausalLM(LlamaConfig(**SIZES)).to(torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def loaded(checkpoint: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.bfloat16, device_map="cuda"
    ).eval()


def mixed() -> list[tuple[tuple[int, ...], int]]:
    """Prompts of 32 to 1024 tokens, answers of 16 to 512, in a fixed shuffled order."""
    order = random.Random(5)
    lengths = [16 + 496 * n // (NUM_REQUESTS - 1) for n in range(NUM_REQUESTS)]
    order.shuffle(lengths)
    sizes = [order.randint(32, 1024) for _ in lengths]
    prompts = [tuple(order.choices(range(10, 1000), k=size)) for size in sizes]
    return list(zip(prompts, lengths, strict=True))


def ours(model: Any) -> Any:
    from transformers import AutoTokenizer

    from benchmarks.hf_contenders import Ours

    return Ours(model, AutoTokenizer.from_pretrained(MODEL_DIR))


def static(model: Any) -> Any:
    from benchmarks.hf_contenders import Static

    return Static(model, NUM_REQUESTS)


def continuous(model: Any) -> Any:
    from transformers.generation import ContinuousBatchingConfig

    from benchmarks.hf_contenders import Continuous

    return Continuous(model, ContinuousBatchingConfig(max_memory_percent=0.3))


def tokens_per_s(contender: Any, work: list[tuple[tuple[int, ...], int]]) -> float:
    torch.cuda.synchronize()
    began_s = time.perf_counter()
    num_tokens: int = contender.run(work)
    assert num_tokens == sum(length for _, length in work)
    return num_tokens / (time.perf_counter() - began_s)


@pytest.mark.parametrize(("peer", "least"), [(static, 2.0), (continuous, 1.0)])
def test_the_engine_is_as_fast_as_it_promises(
    peer: Callable[[Any], Any], least: float, checkpoint: Path
) -> None:
    """At least twice the useful tokens per second of one static batch, and no fewer than those of
    transformers' continuous batching: the median of interleaved repetitions."""
    mine, theirs = ours(loaded(checkpoint)), peer(loaded(checkpoint))
    try:
        work = mixed()
        for contender in (mine, theirs):
            contender.run(work)
        rates = [
            (tokens_per_s(mine, work), tokens_per_s(theirs, work)) for _ in range(NUM_REPETITIONS)
        ]
    finally:
        mine.stop()
        theirs.stop()
    print(f"\n{peer.__name__}: tokens per second, ours and theirs: {rates}")
    assert median(a / b for a, b in rates) >= least
