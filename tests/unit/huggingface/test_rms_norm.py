import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.gemma4.modeling_gemma4 import Gemma4RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from deployments.huggingface.engine import rms_norm

from .operations import Operations

KINDS: list[Any] = [LlamaRMSNorm, Qwen3RMSNorm, GemmaRMSNorm, Gemma4RMSNorm]


@pytest.fixture(autouse=True)
def _untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' own classes before and after."""
    for kind in KINDS:
        original = getattr(kind.forward, "__wrapped__", kind.forward)
        monkeypatch.setattr(kind, "forward", original)
    monkeypatch.setattr(rms_norm, "_tried", set())


def install(*modules: torch.nn.Module, device: str = "cpu") -> None:
    model = SimpleNamespace(device=torch.device(device), modules=lambda: iter(modules))
    rms_norm.install(model)


def norm(kind: Any, size: int = 256) -> Any:
    torch.manual_seed(1)
    module = kind(size)
    module.weight = torch.nn.Parameter(torch.randn(size))
    return module


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Qwen3RMSNorm])
@pytest.mark.parametrize("shape", [(1, 1), (8, 1), (3, 200)])
@torch.inference_mode()
def test_not_a_bit_differs(kind: Any, shape: tuple[int, int]) -> None:
    """The norm says what transformers' own says, bit for bit, in six operations."""
    module, states = norm(kind), torch.randn(*shape, 256)
    before = module(states)
    install(module)
    with Operations() as seen:
        assert torch.equal(module(states), before)
    assert seen.names == [*("mul", "sum", "addcdiv", "rsqrt", "mul", "mul"), "equal"]


@torch.inference_mode()
def test_half_precision_is_transformers_own() -> None:
    """There the rounding in between differs."""
    module, states = norm(LlamaRMSNorm).bfloat16(), torch.randn(4, 1, 256).bfloat16()
    before = module(states)
    install(norm(LlamaRMSNorm))
    with Operations() as seen:
        assert torch.equal(module(states), before)
    assert {"to", "pow", "mean"} <= set(seen.names)


def test_another_formula_is_left_alone() -> None:
    """Gemma multiplies by one more than its weights: what differs is not replaced; nor is anything
    on a GPU, or a weight that is not one of a norm."""
    odd = norm(LlamaRMSNorm)
    odd.weight = torch.nn.Parameter(torch.ones(4, 64))
    install(norm(GemmaRMSNorm), odd)
    install(norm(Qwen3RMSNorm), device="cuda")
    assert not any("__wrapped__" in vars(kind.forward) for kind in KINDS)


@torch.inference_mode()
def test_a_weight_that_is_elsewhere() -> None:
    """Whether both say the same is tried with weights of its own: those of a model that streams may
    not be there yet, and are those that count at each pass."""
    module = norm(LlamaRMSNorm)
    expected = module(states := torch.randn(2, 1, 256))
    streamed = copy.deepcopy(module)
    streamed.weight = torch.nn.Parameter(torch.empty(256, device="meta"))
    install(streamed)
    streamed.weight = module.weight
    assert torch.equal(streamed(states), expected)


@torch.inference_mode()
def test_a_norm_without_a_weight() -> None:
    """Gemma 4 has norms of one class with a weight and without: each says what it said."""
    plain, states = Gemma4RMSNorm(256, with_scale=False), torch.randn(2, 1, 256)
    before = plain(states)
    install(norm(Gemma4RMSNorm), plain)
    assert torch.equal(plain(states), before)
