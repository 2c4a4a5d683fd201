"""What a config.json says of a model's shape, in one vocabulary for every architecture.

Read without torch and transformers, whose import takes longer than all the rest; the tests hold it
against what transformers itself allocates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.errors import StartError

FIELDS = {
    "num_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "num_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "hidden_size": ("hidden_size", "n_embd", "d_model", "n_embed"),
    "vocab_size": ("vocab_size",),
}
INTERMEDIATE = ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner")
# Layers behind the last that predict several tokens at a time, which are left out.
EXTRA_LAYERS = "num_nextn_predict_layers"
MAX_SIZE = 2**48  # of anything; what is larger is no size
MAX_LAYERS = 1000  # no model is as deep; a damaged config would have everybody count to its number
CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
# Old checkpoints leave out what was the library's default when they were saved.
TIED = {
    *("bloom", "falcon", "mpt", "gpt_bigcode", "gpt2", "opt", "gpt_neo", "gemma", "gemma2"),
    *("gemma3_text", "cohere", "cohere2", "starcoder2"),
}
# These attend with matrices of scores: they have no fused attention, or none that is exact.
EAGER = {"bloom", "mpt", "gpt_neo", "gptj", "falcon", "gemma2"}
ALTERNATING = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4}


@dataclass(frozen=True, slots=True)
class LayerCache:
    """What a layer remembers of a token: so many numbers, of the newest `window` tokens or all."""

    num_elements: int
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes that memory follows from. `dtype` is the config's own, as torch names it."""

    model_type: str
    architecture: str
    hidden_size: int
    vocab_size: int
    num_heads: int
    head_dim: int
    intermediate_size: int
    caches: tuple[LayerCache, ...]
    is_tied: bool
    dtype: str | None
    max_model_len: int | None
    is_quantized: bool
    has_extra_layers: bool = False

    @property
    def num_layers(self) -> int:
        """How many decoder layers there are."""
        return len(self.caches)

    @property
    def is_eager(self) -> bool:
        """Whether attention keeps whole matrices of scores."""
        return self.model_type in EAGER


def read_geometry(config: Mapping[str, Any]) -> Geometry:
    """The geometry by a parsed config.json. Raises: StartError for one that lacks a size, or names
    too many layers."""
    check_depth(config)
    text = _text_config(config)
    sizes = {name: _size(text, name, names) for name, names in FIELDS.items()}
    hidden_size, num_heads = sizes["hidden_size"], sizes["num_heads"]
    head_dim = _first(text, ("head_dim",)) or hidden_size // num_heads
    model_type = str(text.get("model_type"))
    dtype = text.get("dtype") or text.get("torch_dtype")
    return Geometry(
        model_type=model_type,
        architecture=_architecture(config) or model_type,
        hidden_size=hidden_size,
        vocab_size=sizes["vocab_size"],
        num_heads=num_heads,
        head_dim=head_dim,
        intermediate_size=_intermediate_size(text, hidden_size),
        caches=_caches(text, sizes["num_layers"], _num_cached(text, num_heads, head_dim)),
        is_tied=bool(text.get("tie_word_embeddings", model_type in TIED)),
        dtype=str(dtype).removeprefix("torch.") if dtype else None,
        max_model_len=_first(text, CONTEXT),
        is_quantized="quantization_config" in config,
        has_extra_layers=bool(text.get(EXTRA_LAYERS)),
    )


def _architecture(config: Mapping[str, Any]) -> str | None:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else None


def check_depth(config: Mapping[str, Any], checkpoint: object = "The checkpoint") -> None:
    """Raises: StartError for more layers than any model has: to make them, even without weights,
    takes all time and memory."""
    text = _text_config(config)
    for num_layers in map(text.get, FIELDS["num_layers"]):
        if isinstance(num_layers, int) and num_layers > MAX_LAYERS:
            raise StartError(
                f"{checkpoint}'s config.json names {num_layers} layers, and no model has more than "
                f"{MAX_LAYERS}. It is damaged: download it again."
            )


def _text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    nested = config.get("text_config")
    return {**config, **(nested if isinstance(nested, dict) else {})}


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    values = (config.get(name) for name in names)
    return next((v for v in values if isinstance(v, int) and 0 < v < MAX_SIZE), None)


def _size(config: Mapping[str, Any], name: str, names: tuple[str, ...]) -> int:
    size = _first(config, names)
    if size is None:
        raise StartError(
            f"The checkpoint's config.json does not say its {name} ({' or '.join(names)}), so what "
            "it needs cannot be planned."
        )
    return size


def _intermediate_size(config: Mapping[str, Any], hidden_size: int) -> int:
    ratio = config.get("expansion_ratio")
    default = (ratio if isinstance(ratio, int) else 4) * hidden_size
    return _first(config, INTERMEDIATE) or default


def _num_cached(config: Mapping[str, Any], num_heads: int, head_dim: int) -> int:
    """Numbers that a layer keeps of a token: its keys and its values, as transformers caches."""
    if rope_dim := _first(config, ("qk_rope_head_dim",)):  # latent attention is cached expanded
        key_dim = (_first(config, ("qk_nope_head_dim",)) or 0) + rope_dim
        return num_heads * (key_dim + (_first(config, ("v_head_dim",)) or key_dim))
    return 2 * _num_key_value_heads(config, num_heads) * head_dim


def _num_key_value_heads(config: Mapping[str, Any], num_heads: int) -> int:
    match config.get("model_type"):
        case "falcon" if config.get("new_decoder_architecture"):
            return num_heads  # transformers repeats the groups' heads before it caches them
        case "falcon" | "gpt_bigcode":
            return 1 if config.get("multi_query", True) else num_heads
    return _first(config, ("num_key_value_heads",)) or num_heads


def _caches(config: Mapping[str, Any], num_layers: int, num_cached: int) -> tuple[LayerCache, ...]:
    window = _first(config, ("sliding_window",))
    if window is None or config.get("use_sliding_window") is False:
        return (LayerCache(num_cached),) * num_layers
    # The layer keeps what the next token will look at beside itself.
    kinds = LayerCache(num_cached), LayerCache(num_cached, max(1, window - 1))
    return tuple(kinds[_slides(config, layer)] for layer in range(num_layers))


def _slides(config: Mapping[str, Any], layer: int) -> bool:
    layer_types = config.get("layer_types")
    if isinstance(layer_types, list) and layer < len(layer_types):
        return bool(layer_types[layer] == "sliding_attention")
    if config.get("use_sliding_window"):
        return layer >= (_first(config, ("max_window_layers",)) or 0)
    every = _first(config, ("sliding_window_pattern",)) or ALTERNATING.get(
        str(config.get("model_type"))
    )
    return every is None or (layer + 1) % every != 0
