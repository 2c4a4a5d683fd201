"""The seed's promise at a small size: a model served in less memory than half of its weights."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import BloomConfig, BloomForCausalLM

from tests.unit.huggingface.models import EOS, VOCAB_SIZE, byte_tokenizer
from tests.unit.streaming.capped import serve, settings

CAP_BYTES = 97 * 2**20


def save_bloom(folder: Path) -> int:
    """A Bloom with 205 MB of weights; returns their bytes."""
    torch.manual_seed(5)
    config = BloomConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=384,
        n_layer=29,
        n_head=8,
        initializer_range=0.1,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    BloomForCausalLM(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return (folder / "model.safetensors").stat().st_size


def serve_capped(folder: Path) -> dict[str, Any]:
    asked = json.dumps({"checkpoint": str(folder), "cap_bytes": CAP_BYTES})
    command = [sys.executable, "-m", "tests.unit.streaming.capped", asked]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_served_in_less_than_half_of_its_weights(tmp_path: Path) -> None:
    """A Bloom of 200 MB answers eight streams at a time through the router, under a cap on memory
    of less than half of its weights, with the resident model's answers."""
    weight_bytes = save_bloom(tmp_path)
    assert weight_bytes > 200e6
    assert weight_bytes / 2 > CAP_BYTES
    expected = asyncio.run(serve(settings(str(tmp_path))))
    got = serve_capped(tmp_path)
    assert (expected["streams"], got["streams"]) == (False, True)
    assert got["cap"] in {"cgroup", "rlimit"}
    assert got["texts"] == expected["texts"]
    assert len(set(got["texts"])) > 1
    assert got["peak_share"] < 1.1  # of the budget, resident and with libraries
