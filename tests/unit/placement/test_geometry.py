"""What configs of many architectures mean for memory, in numbers worked out by hand."""

from typing import Any

import pytest

from deployments.errors import StartError
from deployments.placement.geometry import read_geometry
from deployments.placement.workload import Workload, cache_bytes, cache_bytes_per_token

BLOOM_3B = {"model_type": "bloom", "n_layer": 30, "hidden_size": 2560, "num_attention_heads": 32}
LLAMA_70B = {
    "model_type": "llama",
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
FALCON = {"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32}
FALCON_7B = FALCON | {"num_attention_heads": 71, "multi_query": True}
STARCODER = {"model_type": "gpt_bigcode", "n_layer": 40, "n_embd": 6144, "n_head": 48}
MPT_7B = {"model_type": "mpt", "n_layers": 32, "d_model": 4096, "n_heads": 32}
PYTHIA = {"model_type": "gpt_neox", "num_hidden_layers": 36, "hidden_size": 5120}
MISTRAL = {"model_type": "mistral", "num_hidden_layers": 32, "hidden_size": 4096}
DEEPSEEK = {"model_type": "deepseek_v3", "num_hidden_layers": 61, "hidden_size": 7168}
LATENT = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (BLOOM_3B, 2 * 30 * 2560 * 2),  # 307,200
        (LLAMA_70B, 2 * 80 * 8 * 128 * 2),  # 327,680: grouped queries
        (FALCON_7B, 2 * 32 * 64 * 2),  # one head for all
        (STARCODER, 2 * 40 * 128 * 2),  # one head, though the config leaves multi_query out
        (STARCODER | {"multi_query": False}, 2 * 40 * 6144 * 2),
        (MPT_7B, 2 * 32 * 4096 * 2),
        (PYTHIA | {"num_attention_heads": 40}, 2 * 36 * 5120 * 2),
        (MISTRAL | {"num_attention_heads": 32, "num_key_value_heads": 8}, 2 * 32 * 8 * 128 * 2),
        (DEEPSEEK | LATENT | {"num_attention_heads": 128}, 61 * 128 * (192 + 128) * 2),
        ({"text_config": LLAMA_70B, "model_type": "llava"}, 2 * 80 * 8 * 128 * 2),
    ],
)
def test_bytes_of_a_token(config: dict[str, Any], expected: int) -> None:
    """Keys and values of one token, 16-bit numbers, are what the architecture caches."""
    geometry = read_geometry({"vocab_size": 1000, **config})
    assert cache_bytes_per_token(geometry, 2) == expected


def test_sliding_windows_bound_the_cache() -> None:
    """A layer that looks back on a window keeps that much; others keep all, and spare columns."""
    sliding = MISTRAL | {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 9}
    column = 2 * 8 * 128 * 2
    whole, windowed = sliding | {"sliding_window": None}, sliding | {"sliding_window": 1024}
    asked = Workload(batch=3, context=8000)
    assert cache_bytes(read_geometry(whole), asked, 2) == 3 * 33 * column * (8000 + 1000)
    assert cache_bytes(read_geometry(windowed), asked, 2) == 3 * 33 * column * 1024
    short = Workload(batch=3, context=80)
    assert cache_bytes(read_geometry(windowed), short, 2) == 3 * 33 * column * (80 + 16)


@pytest.mark.parametrize(
    ("fields", "windowed"),
    [
        ({"model_type": "gemma2"}, 3),
        ({"model_type": "qwen2", "use_sliding_window": False}, 0),
        ({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 2}, 4),
        ({"model_type": "gemma3_text"}, 5),
        ({"model_type": "x", "layer_types": ["sliding_attention", "full_attention"] * 3}, 3),
    ],
)
def test_which_layers_slide(fields: dict[str, Any], windowed: int) -> None:
    """Configs say it by a list, by a pattern, or by a first layer; old ones not at all."""
    config = LLAMA_70B | {"vocab_size": 9, "num_hidden_layers": 6, "sliding_window": 64} | fields
    found = [cache.window for cache in read_geometry(config).caches]
    assert [window for window in found if window] == [63] * windowed


@pytest.mark.parametrize("missing", ["num_hidden_layers", "hidden_size", "num_attention_heads"])
def test_missing_sizes_are_named(missing: str) -> None:
    """A config without a size that memory follows from cannot be planned, and says which."""
    config = {name: value for name, value in LLAMA_70B.items() if name != missing}
    with pytest.raises(StartError, match=missing):
        read_geometry(config | {"vocab_size": 9})


def test_a_depth_that_no_model_has() -> None:
    """A damaged config with a billion layers is refused by its number, not counted through."""
    for depth in (10**9, 10**30):
        deep = LLAMA_70B | {"vocab_size": 9, "num_hidden_layers": depth}
        for config in (deep, {"text_config": deep}):
            with pytest.raises(StartError, match=f"names {depth} layers"):
                read_geometry(config)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"architectures": 7}, None),
        ({"architectures": []}, None),
        ({"max_position_embeddings": 10**400}, None),
        ({"hidden_size": 10**400}, "does not say its hidden_size"),
        ({"vocab_size": "many"}, "does not say its vocab_size"),
    ],
)
def test_what_is_no_size(fields: dict[str, Any], says: str | None) -> None:
    """Numbers beyond all measure, and what is no number, count as left out."""
    config = {"vocab_size": 9, **LLAMA_70B, **fields}
    if says is None:
        found = read_geometry(config)
        assert (found.architecture, found.max_model_len) == ("llama", None)
    else:
        with pytest.raises(StartError, match=says):
            read_geometry(config)
