"""Layers that are cast or quantised first: into the offload folder, once, and streamed packed."""

import fcntl
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes import functional
from transformers import AutoConfig, AutoModelForCausalLM

from deployments.config import HuggingFaceConfig
from deployments.errors import StartError
from deployments.huggingface.loading.quantization import refuse, skipped_modules
from deployments.huggingface.streaming import repacked, streamed
from deployments.huggingface.streaming.borrowed import borrowed_weights
from deployments.huggingface.streaming.packed import PackedLinear, linear_weight, pack
from deployments.placement.arrangement import DISK_SLOTS, Tier, slot_bytes
from deployments.placement.budget import Budget
from deployments.placement.demand import BLOCK_NUMBERS, demand
from deployments.placement.planner import Question, make_plan
from deployments.placement.source import from_folder
from deployments.placement.workload import Workload
from deployments.progress import Progress

from .checkpoints import NUM_LAYERS, resident, save_deep, streaming

IDS = torch.arange(33).reshape(3, 11)


def rounded(weight: torch.Tensor, quantization: str) -> torch.Tensor:
    """What bitsandbytes makes of a weight, and back."""
    if quantization == "int8":
        packed, scale, _ = functional.int8_vectorwise_quant(weight.half())
        return functional.int8_vectorwise_dequant(packed, scale).to(weight.dtype)
    packed, state = functional.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
    return functional.dequantize_4bit(packed, state)


def quantized(folder: Path, quantization: str) -> Any:
    """The resident model with its layers' matrices rounded."""
    model = resident(folder, torch.float32)
    layers = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    for layer in layers:
        for name, weight in layer.named_parameters():
            upright = linear_weight(layer, name)
            if upright is not None:
                matrix = (weight if upright else weight.t()).contiguous()
                new = rounded(matrix.data, quantization)
                weight.data = (new if upright else new.t()).contiguous()
    return model


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("kind", ["llama", "bloom", "gpt2", "falcon", "opt"])
def test_quantized_layers_stream_packed(kind: str, quantization: str, tmp_path: Path) -> None:
    """Logits are those of the model with quantised weights, and a third of its bytes are read."""
    save_deep(kind, tmp_path, torch.float32)
    expected = quantized(tmp_path, quantization)
    plain = streaming(tmp_path, torch.float32, 2)[1].ring._layouts[0]
    model, streamer = streaming(tmp_path, torch.float32, 2, quantization=quantization)
    with torch.inference_mode():
        for batch in (1, 3):
            got = model(IDS[:batch]).logits
            # gpt2 multiplies by transposed weights: the same sums in another order.
            same = torch.allclose if kind == "gpt2" else torch.equal
            assert same(got, expected(IDS[:batch]).logits)
        with borrowed_weights(model):
            assert model(IDS).logits.isfinite().all()
        assert torch.equal(model(IDS[:batch]).logits, got)
    tensors = [sum(view.num_bytes for view in layout.views) for layout in streamer.ring._layouts]
    assert tensors[0] < sum(view.num_bytes for view in plain.views) / 3


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_matrices_are_unpacked_by_rows(quantization: str, dtype: torch.dtype) -> None:
    """What is multiplied by some rows at a time is what the whole matrix would give."""
    shape = 3 * BLOCK_NUMBERS // 1088, 1088  # the last rows are fewer
    weight, bias = torch.randn(shape).to(dtype), torch.randn(shape[0]).to(dtype)
    layer = PackedLinear(quantization, shape, dtype, bias=True)
    for name, part in pack(weight, quantization).items():
        setattr(layer, name, part)
    layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    states = torch.randn(2, 3, shape[1]).to(dtype)
    whole = torch.nn.functional.linear(states, rounded(weight, quantization), bias)
    with torch.inference_mode():
        assert torch.allclose(layer(states), whole, rtol=0, atol=float(whole.abs().max()) / 100)


def test_cast_layers(tmp_path: Path) -> None:
    """A checkpoint in float32 that is to run in bfloat16 is cast once, and then as exact."""
    save_deep("llama", tmp_path, torch.float32)
    expected = resident(tmp_path, torch.bfloat16)
    model, _ = streaming(tmp_path, torch.bfloat16, 2)
    with torch.inference_mode():
        assert torch.equal(model(IDS).logits, expected(IDS).logits)


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_a_plan_is_carried_out(quantization: str, tmp_path: Path) -> None:
    """A plan that streams quantised layers makes a model whose layers are, and fit the slots that
    were planned."""
    save_deep("llama", tmp_path, torch.float32)
    asked = from_folder(tmp_path)
    budget = Budget(0, 10**9, 10**9, base_bytes=0)
    plan = make_plan(Question(asked, Workload(), budget, (quantization,), (Tier.DISK,)))
    assert plan.chosen
    assert plan.arrangement
    # As if there were room for the slots only.
    tiers = (Tier.DISK,) * len(plan.arrangement.tiers)
    plan = replace(plan, arrangement=replace(plan.arrangement, tiers=tiers, num_slots=DISK_SLOTS))
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    model = streamed.load(skeleton, plan, tmp_path / "disk", unreported)
    with torch.inference_mode():
        assert model(IDS).logits.isfinite().all()
    num_packed = sum(isinstance(module, PackedLinear) for module in model.modules())
    assert num_packed == (0 if quantization == "none" else 7 * len(tiers))
    assert model.streamer.ring.num_bytes <= DISK_SLOTS * slot_bytes(plan.chosen.demand)


def test_modules_that_stay_unquantised(tmp_path: Path) -> None:
    """Those that the options name are streamed as they are, others packed, all as planned; a
    threshold, which layers that stream have no use for, is refused by name."""
    save_deep("llama", tmp_path, torch.float32)
    options = {"llm_int8_skip_modules": ["layers.1", "down_proj"]}
    config = HuggingFaceConfig(
        checkpoint=str(tmp_path), quantization="int8", quantization_options=options
    )
    asked = from_folder(tmp_path)
    weights = asked.weights.skipping(config.quantization_options.llm_int8_skip_modules)
    question = Question(
        replace(asked, weights=weights),
        Workload(),
        Budget(0, 10**9, 10**9, base_bytes=0),
        ("int8",),
        (Tier.DISK,),
    )
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    skipped = skipped_modules(config, skeleton)
    model = streamed.load(skeleton, make_plan(question), tmp_path / "disk", unreported, skipped)
    names = [n for n, m in model.named_modules() if type(m) is torch.nn.Linear and "mlp" in n]
    assert names == [
        f"model.layers.{n}.mlp.{part}_proj"
        for n in range(NUM_LAYERS)
        for part in (("gate", "up", "down") if n == 1 else ("down",))
    ]
    held = [sum(map(num_bytes, (*of.parameters(), *of.buffers()))) for of in model.model.layers]
    assert held == [*demand(question.model, "int8", Workload()).layers]
    threshold = config.quantization_options.model_copy(update={"llm_int8_threshold": 4.0})
    with pytest.raises(StartError, match="llm_int8_threshold cannot work with layers that stream"):
        refuse(config.model_copy(update={"quantization_options": threshold}), skeleton, True)


def num_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class Source:
    """Layers to repack, and how often each was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, number: int) -> dict[str, torch.Tensor]:
        self.asked.append(number)
        return {"a": torch.full((5,), float(number)), "b": torch.zeros(3, dtype=torch.uint8)}


def unreported(progress: Progress) -> None: ...


def test_repacking_happens_once(tmp_path: Path) -> None:
    """The second start finds what the first has written, and says how far each has come."""
    folder, source, told = tmp_path / "disk" / "key", Source(), []
    first = repacked.repack(folder, 3, source, told.append)
    assert [step.percent for step in told] == [0.0, 33.3, 66.7, 100.0]
    second = repacked.repack(folder, 3, source, unreported)
    assert source.asked == [0, 1, 2]
    assert first == second
    assert all(min(t.start for t in layer.values()) % 64 == 0 for layer in first)
    assert {name: tensor.shape for name, tensor in first[0].items()} == {"a": (5,), "b": (3,)}


def cut(folder: Path) -> None:
    file = folder / "layer-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip(folder: Path) -> None:
    file = folder / "layer-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def forget(folder: Path) -> None:
    (folder / repacked.MANIFEST).unlink()


@pytest.mark.parametrize("harm", [cut, flip, forget])
def test_damage_is_repaired(harm: Callable[[Path], None], tmp_path: Path) -> None:
    """What does not have its checksum any more is written again."""
    folder, source = tmp_path / "key", Source()
    repacked.repack(folder, 2, source, unreported)
    harm(folder)
    repacked.repack(folder, 2, source, unreported)
    assert source.asked == [0, 1, 0, 1]
    assert len(json.loads((folder / repacked.MANIFEST).read_text())) == 2


def test_leftovers_are_removed(tmp_path: Path) -> None:
    """What a killed process left half written goes; what a living one writes stays."""
    dead, living = tmp_path / "x.part-1", tmp_path / "y.part-2"
    for part in (dead, living):
        part.mkdir()
        (part / repacked.LOCK).touch()
        (part / "layer-00000.safetensors").write_bytes(b"half")
    with (living / repacked.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        repacked.repack(tmp_path / "key", 1, Source(), unreported)
    assert not dead.exists()
    assert living.exists()


KILLED = """
import sys, time
from pathlib import Path
from deployments.huggingface.streaming import repacked

def layer(number):
    print("writing", flush=True)
    time.sleep(600)

repacked.repack(Path(sys.argv[1]), 1, layer, lambda progress: None)
"""


def test_what_a_killed_process_left(tmp_path: Path) -> None:
    """A process that is killed while it repacks leaves half a folder; the next one removes it."""
    folder, command = tmp_path / "key", [sys.executable, "-c", KILLED, str(tmp_path / "key")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        left = [*tmp_path.glob("*.part-*")]
        process.kill()
    assert len(left) == 1
    repacked.repack(folder, 1, Source(), unreported)
    assert [*tmp_path.iterdir()] == [folder]


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from deployments.errors import StartError
from deployments.huggingface.streaming import repacked

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    repacked.repack(
        Path(sys.argv[1]), 3, lambda n: {"a": torch.zeros(50_000)}, lambda progress: None
    )
except StartError as error:
    print(error.message)
"""


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    """Where the system lets a file grow no further, the start ends with the setting's name, and
    nothing is left behind."""
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "disk" / "key")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "could not be repacked" in done.stdout
    assert "Set `memory.disk` to a folder with room" in done.stdout
    assert not [*(tmp_path / "disk").iterdir()]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """A write that fails ends the start, names the setting, and leaves nothing behind."""

    def full(number: int) -> dict[str, torch.Tensor]:
        raise OSError(28, "No space left on device")

    with pytest.raises(StartError, match=r"No space left on device\. Set `memory.disk`"):
        repacked.repack(tmp_path / "key", 1, full, unreported)
    assert not [*tmp_path.iterdir()]
