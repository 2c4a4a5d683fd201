"""The engine beside `generate` and transformers' own continuous batching, on a GPU.

A Llama of 1.2 B random parameters in bfloat16: what it says means nothing, what it costs does.
`pytest -m gpu tests/gpu/test_speed.py -s` prints the figures. Not yet run on a GPU by us.
"""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from demo.checkpoint import MODEL_DIR
from tests.gpu.device import DEVICE, ON_GPU, needs_gpu, sized, torch, wait_for_device

pytestmark = needs_gpu

Work = list[tuple[tuple[int, ...], int]]

NUM_REQUESTS, NUM_REPETITIONS = 32, sized(3, 1)
LONGEST_PROMPT, LONGEST_ANSWER = sized(1024, 48), sized(512, 24)
SHORTEST_PROMPT, SHORTEST_ANSWER = sized(32, 4), sized(16, 2)
# Pages for all requests at a time: by default they would take most of the GPU. On a GPU they are of
# the default size, the only one that FlashAttention 2 takes, which is chosen where it is installed.
PAGES = {
    "page_size": sized(256, 32),
    "num_blocks": sized(256, 128),
    "max_batch_tokens": sized(1024, 64),
}
SIZES = {
    "hidden_size": sized(2048, 64),
    "intermediate_size": sized(8192, 96),
    "num_hidden_layers": sized(20, 2),
    "num_attention_heads": sized(32, 4),
    "num_key_value_heads": sized(8, 2),
    "max_position_embeddings": 4096,
    "vocab_size": 1024,  # the demo's, whose tokenizer makes text of it
    "eos_token_id": None,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights, saved once: every contender gets a model of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    with torch.device(DEVICE):
        model = LlamaForCausalLM(LlamaConfig(**SIZES)).to(torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def loaded(checkpoint: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.bfloat16, device_map=DEVICE
    ).eval()


@pytest.fixture(scope="module")
def mine(checkpoint: Path) -> Iterator[Any]:
    """Our engine, warm."""
    from transformers import AutoTokenizer

    from benchmarks.huggingface.contenders import Ours

    ours = Ours(loaded(checkpoint), AutoTokenizer.from_pretrained(MODEL_DIR))
    ours.run(mixed())
    yield ours
    ours.stop()


def mixed() -> Work:
    """Prompts and answers of all lengths, in a fixed shuffled order."""
    order = random.Random(5)
    span = LONGEST_ANSWER - SHORTEST_ANSWER
    lengths = [SHORTEST_ANSWER + span * n // (NUM_REQUESTS - 1) for n in range(NUM_REQUESTS)]
    order.shuffle(lengths)
    sizes = [order.randint(SHORTEST_PROMPT, LONGEST_PROMPT) for _ in lengths]
    prompts = [tuple(order.choices(range(10, 1000), k=size)) for size in sizes]
    return list(zip(prompts, lengths, strict=True))


def static_by_8(model: Any) -> Any:
    from benchmarks.huggingface.contenders import Static

    return Static(model, 8)


def static_at_once(model: Any) -> Any:
    from benchmarks.huggingface.contenders import Static

    return Static(model, NUM_REQUESTS)


def continuous(model: Any) -> Any:
    from transformers.generation import ContinuousBatchingConfig

    from benchmarks.huggingface.contenders import Continuous

    return Continuous(model, ContinuousBatchingConfig(**PAGES))


def tokens_per_s(contender: Any, work: Work) -> float:
    wait_for_device()
    began_s = time.perf_counter()
    num_tokens: int = contender.run(work)
    wait_for_device()
    assert num_tokens == sum(length for _, length in work)
    return num_tokens / (time.perf_counter() - began_s)


# With all requests in one static batch there are as many steps as with ours, those of the longest
# answer, and a GPU takes as long for a step with few rows: there is nothing to win, only to lose.
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("peer", "least"), [(static_by_8, 2.0), (continuous, 1.0), (static_at_once, 0.7)]
)
def test_the_engine_is_as_fast_as_it_promises(
    peer: Callable[[Any], Any], least: float, mine: Any, checkpoint: Path
) -> None:
    """At least twice the useful tokens per second of static batches, and no fewer than those of
    transformers' continuous batching: the median of interleaved repetitions."""
    theirs = peer(loaded(checkpoint))
    try:
        work = mixed()
        theirs.run(work)
        rates = [
            (tokens_per_s(mine, work), tokens_per_s(theirs, work)) for _ in range(NUM_REPETITIONS)
        ]
    finally:
        theirs.stop()
    print(f"\n{peer.__name__}: tokens per second, ours and theirs: {rates}")
    assert not ON_GPU or median(a / b for a, b in rates) >= least
