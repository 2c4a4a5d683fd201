import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes import functional
from pydantic import ValidationError
from torch import nn

from deployments import backends
from deployments.config import HuggingFaceConfig
from deployments.errors import StartError
from deployments.huggingface.loading import packing
from deployments.huggingface.loading.loader import load

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


@pytest.mark.parametrize("shape", [(3 * 1024, 1024), (5, 2**21), (2**21 + 64, 2)])
def test_packing_by_pieces(shape: tuple[int, int]) -> None:
    """Matrices that are packed some rows at a time have the bytes that bitsandbytes gives them as
    a whole."""
    weight = torch.randn(shape)
    options = {"blocksize": 64, "compress_statistics": True, "quant_type": "nf4"}
    options["quant_storage"] = torch.uint8
    found = []
    for way in (nullcontext, packing.by_pieces):
        with way():
            packed, state = functional.quantize_4bit(weight, **options)
            parts = (state.absmax, state.state2.absmax, state.offset)
            unpacked = functional.dequantize_4bit(packed, state)
            found.append(
                (packed, *parts, unpacked, *functional.int8_vectorwise_quant(weight.half()))
            )
    for whole, pieces in zip(*found, strict=True):
        assert (whole is None and pieces is None) or torch.equal(whole, pieces)


def test_a_model_of_which_nothing_was_converted_is_refused(tmp_path: Path) -> None:
    """`quantization` that had no effect is an error, with the layers that were found."""
    architectures.save("llama", tmp_path, num_hidden_layers=0)
    with pytest.raises(StartError, match=r"converted no layer of LlamaForCausalLM.*: 1 Linear"):
        load(configured(tmp_path, quantization="int8"))


def optioned(folder: Path | str, kind: str, **options: Any) -> Any:
    return configured(folder, quantization=kind, quantization_options=options)


@pytest.mark.parametrize("quantization", LAYERS)
def test_skipped_modules(quantization: str, tmp_path: Path) -> None:
    """`llm_int8_skip_modules` leaves modules as they are by whole parts of their names, and the
    output head with them."""
    folder = save("llama", tmp_path)
    skipped = ["layers.1", "self_attn.q_proj"]
    model = load(optioned(folder, quantization, llm_int8_skip_modules=skipped)).model
    plain = {name for name, kind in layers(model).items() if kind == "Linear"}
    of_layer_1 = {name for name in layers(model) if name.startswith("model.layers.1.")}
    assert of_layer_1
    assert plain == of_layer_1 | {"lm_head", "model.layers.0.self_attn.q_proj"}


def test_the_threshold_is_bitsandbytes_own(tmp_path: Path) -> None:
    """`llm_int8_threshold` is that of every layer; left out, it is bitsandbytes' 6."""
    folder, found = save("llama", tmp_path), []
    for options in ({}, {"llm_int8_threshold": 2.5}):
        model = load(optioned(folder, "int8", **options)).model
        found.append(model.model.layers[0].mlp.up_proj.state.threshold)
    assert found == [6.0, 2.5]


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    """A name to skip that no layer has is refused, with one that could be meant."""
    with pytest.raises(StartError, match=r"names `q_projs`.* is called `model\.layers\.0\."):
        load(optioned(save("llama", tmp_path), "nf4", llm_int8_skip_modules=["q_projs"]))


def test_a_quantized_checkpoint_is_not_quantized_again(tmp_path: Path) -> None:
    """`quantization` of one that says it is quantized is refused before its weights are read."""
    config = json.loads((save("llama", tmp_path) / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StartError, match="nf4 cannot work on a checkpoint that is quantized"):
        load(configured(tmp_path, quantization="nf4"))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"quantization": "nf4", "options": {"llm_int8_threshold": 1}}, "`quantization: int8"),
        ({"options": {"llm_int8_skip_modules": ["a"]}}, "here it is none"),
        (
            {"quantization": "int8", "options": {"llm_int8_enable_fp32_cpu_offload": True}},
            "`memory.streaming: accelerate`",
        ),
        ({"quantization": "int8", "options": {"llm_int8_skip": ["a"]}}, "llm_int8_skip"),
    ],
)
def test_options_that_cannot_work(args: dict[str, Any], says: str) -> None:
    """An option that could have no effect is refused by its name before anything is loaded."""
    options = {"quantization_options": args.pop("options")}
    with pytest.raises(ValidationError, match=says):
        HuggingFaceConfig(checkpoint="anywhere", **args, **options)
