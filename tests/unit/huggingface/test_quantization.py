import logging
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from deployments import backends
from deployments.errors import StartError
from deployments.huggingface.loader import load

from . import architectures
from .asking import CHAT, ask, configured

DEMO = "package:demo/model"
LAYERS = {"int8": "Linear8bitLt", "nf4": "Linear4bit"}
WIDE = {"hidden_size": 64, "intermediate_size": 128, "n_embd": 64, "initializer_range": 0.02}


def save(kind: str, folder: Path) -> Path:
    """A model wide enough for blocks of 64 weights."""
    architectures.save(kind, folder, **WIDE)
    return folder


def layers(model: Any) -> dict[str, str]:
    return {n: type(m).__name__ for n, m in model.named_modules() if isinstance(m, nn.Linear)}


@pytest.mark.parametrize("kind", ["int8", "nf4"])
async def test_a_quantized_model_answers(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """The demo model in 8 or 4 bits still knows what it knew, many requests at a time."""
    args = {"model_type": "demo", "backend": "huggingface", "quantization": kind}
    backend = backends.build("demo", backends.configure(args))
    with caplog.at_level(logging.INFO, "deployments"):
        await backend.start()
    try:
        turns = [{"role": "user", "content": "What is the capital of France?"}]
        got = await ask(backend, CHAT, messages=turns, temperature=0)
    finally:
        await backend.stop()
    assert "Paris" in got.body["choices"][0]["message"]["content"]
    assert f"{kind}: 28 of 29 linear layers" in caplog.text
    assert "one at a time" not in caplog.text


@pytest.mark.parametrize("quantization", LAYERS)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "falcon"])
def test_every_layer_but_the_head_is_converted(
    kind: str, quantization: str, tmp_path: Path
) -> None:
    """Conv1D (GPT-2) and Falcon's own Linear included; the output head stays as it was."""
    model = load(configured(save(kind, tmp_path), quantization=quantization)).model
    by_name = layers(model)
    head = next(n for n, m in model.named_modules() if m is model.get_output_embeddings())
    assert by_name.pop(head) == "Linear"
    assert set(by_name.values()) == {LAYERS[quantization]}
    assert not any(type(module).__name__ == "Conv1D" for module in model.modules())


def test_the_weights_take_less_memory() -> None:
    """What is converted takes a quarter or an eighth of its float32."""
    sizes = {
        kind: load(configured(DEMO, quantization=kind)).model.get_memory_footprint()
        for kind in ("none", "int8", "nf4")
    }
    assert sizes["nf4"] < sizes["int8"] < sizes["none"] / 2


def test_a_model_of_which_nothing_was_converted_is_refused(tmp_path: Path) -> None:
    """`quantization` that had no effect is an error, with the layers that were found."""
    architectures.save("llama", tmp_path, num_hidden_layers=0)
    with pytest.raises(StartError, match=r"converted no layer of LlamaForCausalLM.*: 1 Linear"):
        load(configured(tmp_path, quantization="int8"))
