"""What the catalogue says of each model, against what is known of it."""

import math
from typing import Any

import pytest

from deployments import backends
from deployments.catalog import Unservable, entries, with_defaults
from deployments.config import ApiConfig, CheckpointConfig, VLLMConfig

from .facts import API, LOCAL, facts

CHECKPOINT = "/models/mine"
PYTHIA_FRAMING = "\nQuestion:"  # of our template: there is no other
UTILIZATION = 0.95  # gpu_memory_utilization's default
WORKSPACE_GB = 2.5  # activations, CUDA graphs, NCCL


def configured(**args: Any) -> Any:
    return backends.configure(args)


def test_the_whole_pool_is_there() -> None:
    """The 17 models of the pool and the demo, and nothing else."""
    assert set(entries()) == {*facts(), "demo"}


@pytest.mark.parametrize("key", LOCAL)
def test_facts(key: str) -> None:
    """Architecture, size, context, licence, gate and repository are those known of the model."""
    entry, known = entries()[key], LOCAL[key]
    assert entry.architecture == known["architecture"].partition(" ")[0]
    assert entry.parameters == known["params"]
    assert entry.context == known["context"]
    assert entry.kv_bytes_per_token == known["kv_bytes_per_token_bf16"]
    assert known["license"].startswith(str(entry.license))
    assert entry.gated is known["gated"]
    assert str(entry.repo) in known["hf_repo"]
    assert (entry.weights == "safetensors") is ("safetensors" in known["checkpoint"])


@pytest.mark.parametrize("key", LOCAL)
def test_backend(key: str) -> None:
    """vLLM serves whatever it runs, the huggingface backend the rest."""
    supported = "NOT supported" not in LOCAL[key]["vllm_0_32"]
    assert entries()[key].backend == ("vllm" if supported else "huggingface")


@pytest.mark.parametrize("key", LOCAL)
def test_settings(key: str) -> None:
    """The settings of an entry become its backend's: 16-bit weights, template, stops."""
    config, known = configured(model_type=key, checkpoint=CHECKPOINT), LOCAL[key]
    assert isinstance(config, CheckpointConfig)
    dtype = known["dtype"].partition(" ")[0]
    assert config.dtype == ("float16" if dtype == "float32" else dtype)
    assert [stop for stop in config.stop if stop != PYTHIA_FRAMING] == known["stop_strings"]
    assert list(config.stop_token_ids) == known["stop_token_ids"]
    assert config.chat_template is not None
    assert config.trust_remote_code is False


@pytest.mark.parametrize("key", LOCAL)
@pytest.mark.parametrize("memory_gb", [80, 24])
def test_gpus(key: str, memory_gb: int) -> None:
    """The GPUs of an entry are the fewest that hold its weights and one whole context, split as its
    attention heads allow; an entry that cannot be split has no line where it does not fit."""
    entry, known = entries()[key], LOCAL[key]
    can_split = known["architecture"].startswith(("Llama", "Falcon", "GPTNeoX"))
    num_heads, room_gb = known["num_attention_heads"], memory_gb * UTILIZATION - WORKSPACE_GB
    weights_gb = known["params"] * 2 / 1e9
    context_gb = known["kv_bytes_per_token_bf16"] * known["context"] / 1e9
    splits = [n for n in (1, 2, 4, 8) if num_heads % n == 0 and (can_split or n == 1)]
    enough = [n for n in splits if (weights_gb + context_gb) / n <= room_gb]
    assert entry.num_gpus(memory_gb) == (enough[0] if enough else None)


def test_gpus_are_the_default() -> None:
    """vLLM splits a model over the GPUs that the catalogue gives for their memory, 80 GB unless
    said otherwise; whatever the args say of it wins."""

    def split(**args: Any) -> int:
        config = configured(model_type="falcon-40b-instruct", **args)
        assert isinstance(config, VLLMConfig)
        return config.tensor_parallel_size

    assert split() == 2
    assert split(gpu_memory_gb=141) == 2
    assert split(gpu_memory_gb=79.9) == split(gpu_memory_gb=24) == 8
    assert split(gpu_memory_gb=24, tensor_parallel_size=4) == 4
    assert split(num_gpus=4) == 4
    assert split(num_gpus=0) == 1
    assert split(gpu_memory_gb=16, tensor_parallel_size=16) == 16


@pytest.mark.parametrize(
    ("model_type", "memory_gb"), [("starchat", 24), ("falcon-40b-instruct", 16), ("demo", 24)]
)
def test_gpus_that_are_too_small(model_type: str, memory_gb: float) -> None:
    """GPUs for which the catalogue has no line are refused before anything starts."""
    with pytest.raises(ValueError, match="gpu_memory_gb"):
        configured(model_type=model_type, gpu_memory_gb=memory_gb)


@pytest.mark.parametrize("memory_gb", ["much", True, 0, -24, None, math.nan])
def test_memory_is_a_number(memory_gb: object) -> None:
    """A `gpu_memory_gb` that is no amount of memory is refused by name."""
    with pytest.raises(Unservable, match="gpu_memory_gb"):
        configured(model_type="vicuna-33b", gpu_memory_gb=memory_gb)


@pytest.mark.parametrize(
    ("model_type", "args"),
    [
        ("starchat", {"quantization": "nf4"}),
        ("starchat", {"tensor_parallel_size": 2}),
        ("starchat", {"backend": "huggingface"}),
        ("mpt-30b-chat", {"memory": {"cpu": "60GiB"}}),
    ],
)
def test_ways_to_fit_smaller_gpus(model_type: str, args: dict[str, Any]) -> None:
    """Where the args say how to do with less, the catalogue's figures refuse nothing."""
    config = configured(model_type=model_type, checkpoint=CHECKPOINT, gpu_memory_gb=24, **args)
    assert {name: getattr(config, name) for name in args if name != "memory"} == {
        name: value for name, value in args.items() if name != "memory"
    }


@pytest.mark.parametrize("key", LOCAL)
def test_what_cannot_be_served_says_so(key: str) -> None:
    """Deltas, diffs and deleted repositories are refused with the reason and the way out; with a
    checkpoint of the operator's, and for all others, a model_type is all it takes."""
    known = LOCAL[key]["hf_status"].lower()
    lost = any(word in known.partition(";")[0] for word in ("delta", "diff", "removed"))
    lost = lost or "original was a delta" in known
    if lost:
        with pytest.raises(Unservable, match="et `checkpoint:`"):
            configured(model_type=key)
    else:
        assert configured(model_type=key).checkpoint == entries()[key].repo
    assert configured(model_type=key, checkpoint=CHECKPOINT).checkpoint == CHECKPOINT


@pytest.mark.parametrize("key", API)
def test_commercial_models(key: str) -> None:
    """A commercial model that is gone is answered by its replacement, with its provider's key."""
    config, known = configured(model_type=key), API[key]
    assert isinstance(config, ApiConfig)
    assert config.models[key].upstream_model == known["replacement"].partition(" ")[0]
    assert ("google" in config.models[key].base_url) is (known["provider"] == "google")
    assert config.models[key].api_key_env is not None


def test_pickles() -> None:
    """Weights that the hub has as pickles only are loaded from its known repository, not from a
    checkpoint of the operator's, who must allow them."""
    pickled = {"model_type": "vicuna-33b", "backend": "huggingface"}
    assert configured(**pickled).allow_pickle
    assert not configured(**pickled, checkpoint=CHECKPOINT).allow_pickle
    assert not configured(model_type="falcon-40b-instruct", backend="huggingface").allow_pickle


def test_args_win() -> None:
    """Every default of an entry gives way to the args, null included."""
    mine = {"dtype": "float32", "chat_template": None, "stop": [], "backend": "huggingface"}
    settings = with_defaults({"model_type": "vicuna-33b", **mine})
    assert {name: settings[name] for name in mine} == mine
    assert settings["stop_token_ids"] == [2]
    assert "tensor_parallel_size" not in settings


def test_unknown_names() -> None:
    """A name that is not there needs a checkpoint, and then is nothing but a name."""
    with pytest.raises(Unservable, match="not in the catalogue"):
        with_defaults({"model_type": "no-such", "backend": "vllm"})
    args = {"model_type": "no-such", "backend": "vllm", "checkpoint": CHECKPOINT}
    assert with_defaults(args) == args
