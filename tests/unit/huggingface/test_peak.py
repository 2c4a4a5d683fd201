"""What a resident model takes at the most while it is loaded, beside what was planned for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deployments.placement.arrangement import CPU_LIBRARY_BYTES
from tests import tiny_models

from .models import EOS, VOCAB_SIZE, byte_tokenizer

NUM_LAYERS = 10


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in float32 whose matrices are large beside its layers: 340 MB."""
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": NUM_LAYERS}
    ends = {"bos_token_id": EOS, "eos_token_id": EOS, "pad_token_id": None}
    heads = {"num_attention_heads": 8, "max_position_embeddings": 64}
    fields = {"vocab_size": VOCAB_SIZE, **sizes, **heads, **ends, "initializer_range": 0.02}
    model = tiny_models.random_model("llama", dtype=torch.float32, **fields)
    return tiny_models.save(model, byte_tokenizer(), tmp_path_factory.mktemp("wide"))


@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [("float32", "int8"), ("bfloat16", "nf4"), ("bfloat16", "none")],
)
def test_the_peak_of_loading_is_within_the_plan(dtype: str, quantization: str, wide: Path) -> None:
    """Neither the checkpoint's file nor what is held while a matrix is packed or cast adds to what
    was planned for weights and work."""
    command = [sys.executable, "-m", "tests.unit.huggingface.peak", str(wide), dtype, quantization]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["took"] < told["planned"] + CPU_LIBRARY_BYTES
