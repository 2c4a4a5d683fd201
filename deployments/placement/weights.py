"""A model's weights by where they can be put: each decoder layer, and all that is around them."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path

from deployments.errors import StartError
from deployments.placement.geometry import Geometry
from deployments.placement.header import StoredTensor

IN_LAYER = re.compile(r"(?:(.+?)\.)?(\d+)\.")
EXPERT = re.compile(r"\.experts\.\d+\.")
HEADS = ("lm_head.weight", "embed_out.weight")
# Buffers that old checkpoints stored; transformers makes them anew.
BUFFERS = ("rotary_emb.inv_freq", ".masked_bias")
BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8.0),
    **dict.fromkeys(("F32", "I32", "U32"), 4.0),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2.0),
}
CASTABLE = {"F64", "F32", "F16", "BF16"}
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}
NF4_BLOCK = 64  # weights with one scale, itself a byte; so many scales have a float32 one
NF4_SCALES = 256
NF4_TABLES = 4 * (16 + 256 + 1)


@dataclass(frozen=True, slots=True)
class Part:
    """Tensors that are placed together. Those named `unquantized` stay as they are, whatever the
    others become."""

    tensors: tuple[StoredTensor, ...]
    unquantized: frozenset[str] = frozenset()

    @property
    def num_parameters(self) -> int:
        """How many numbers it has."""
        return sum(tensor.num_elements for tensor in self.tensors)

    @property
    def stored_bytes(self) -> int:
        """What it takes in the files."""
        return sum(tensor.num_bytes for tensor in self.tensors)

    def num_bytes(self, dtype: str, quantization: str = "none") -> int:
        """What it takes in memory. `dtype` is safetensors' name."""
        kinds = (quantization if self.quantizes(tensor) else "none" for tensor in self.tensors)
        return sum(map(_num_bytes, self.tensors, repeat(dtype), kinds))

    def quantizes(self, tensor: StoredTensor) -> bool:
        """Whether one of its tensors is quantised, if any are."""
        return _is_linear(tensor) and tensor.name not in self.unquantized


@dataclass(frozen=True)
class Weights:
    """The decoder layers in order, and the embeddings, norms and heads around them. `beyond` are
    the names of weights of layers that the config does not name, and nobody loads."""

    layers: tuple[Part, ...]
    outer: Part
    beyond: tuple[str, ...] = ()

    @cached_property
    def stored_dtype(self) -> str:
        """The type that most of the stored bytes have."""
        by_dtype: dict[str, int] = defaultdict(int)
        for part in (*self.layers, self.outer):
            for tensor in part.tensors:
                by_dtype[tensor.dtype] += tensor.num_bytes
        return max(by_dtype, key=lambda dtype: by_dtype[dtype])

    @property
    def num_parameters(self) -> int:
        """How many numbers the model has, tied ones counted once."""
        return self.outer.num_parameters + sum(layer.num_parameters for layer in self.layers)

    @property
    def stored_bytes(self) -> int:
        """What the files hold of it."""
        return self.outer.stored_bytes + sum(layer.stored_bytes for layer in self.layers)

    @property
    def largest_matrix(self) -> int:
        """Numbers in the largest matrix that would be quantised."""
        found = ((layer, tensor) for layer in self.layers for tensor in layer.tensors)
        return max((t.num_elements for layer, t in found if layer.quantizes(t)), default=0)

    @property
    def longest_row(self) -> int:
        """Numbers in the longest row or column of the layers' matrices."""
        tensors = (tensor for layer in self.layers for tensor in layer.tensors)
        return max((max(t.shape) for t in tensors if _is_linear(t)), default=0)

    @property
    def largest_file(self) -> Path:
        """The file with the largest tensor."""
        tensors = [tensor for part in (*self.layers, self.outer) for tensor in part.tensors]
        return max(tensors, key=lambda tensor: tensor.num_bytes).file

    @property
    def has_parts(self) -> bool:
        """Whether layers hold experts one by one, which models hold as one."""
        tensors = (tensor for layer in self.layers for tensor in layer.tensors)
        return any(EXPERT.search(tensor.name) for tensor in tensors)

    def skipping(self, modules: Collection[str]) -> "Weights":
        """The same, but modules of these names, or of names with these parts, stay unquantised."""
        names = [tensor.name for layer in self.layers for tensor in layer.tensors]
        kept = frozenset(name for module in modules for name in _named(module, names))
        return replace(self, layers=tuple(replace(part, unquantized=kept) for part in self.layers))

    def is_stored_as(self, dtype: str) -> bool:
        """Whether every layer can be used as it stands in the files."""
        tensors = (tensor for layer in self.layers for tensor in layer.tensors)
        return all(t.dtype == dtype or t.dtype not in CASTABLE for t in tensors)


def sort_weights(tensors: Iterable[StoredTensor], geometry: Geometry) -> Weights:
    """Takes a checkpoint's tensors apart.

    Raises: StartError where the layers are not to be found.
    """
    used = [tensor for tensor in tensors if not _is_buffer(tensor)]
    prefix = _layers_prefix(used, geometry.num_layers)
    layers: list[list[StoredTensor]] = [[] for _ in range(geometry.num_layers)]
    names = {tensor.name for tensor in used}
    outer, beyond = list[StoredTensor](), list[str]()
    for tensor in used:
        match = IN_LAYER.match(tensor.name)
        if match is None or (match[1] or "") != prefix:
            outer.append(tensor)
        elif int(match[2]) < len(layers):
            layers[int(match[2])].append(tensor)
        elif f"{tensor.name[: match.start(2)]}0{tensor.name[match.end(2) :]}" in names:
            beyond.append(tensor.name)
    if geometry.is_tied:
        outer = _without_heads(outer)
    if geometry.has_extra_layers:
        beyond = []
    return Weights(tuple(Part(tuple(layer)) for layer in layers), Part(tuple(outer)), tuple(beyond))


def has_part(name: str, part: str) -> bool:
    """Whether a module's name has another one among its parts: `a.b.c` has `b` and `b.c`."""
    return f".{part}." in f".{name}."


def _named(module: str, names: list[str]) -> list[str]:
    """Of tensors' names those of a module; bare decoders' lack what its name begins with."""
    while module:
        if found := [name for name in names if has_part(name, module)]:
            return found
        module = module.partition(".")[2]
    return []


def _without_heads(outer: list[StoredTensor]) -> list[StoredTensor]:
    """Tied heads are the embeddings, even if the files hold them twice."""
    rest = [tensor for tensor in outer if not tensor.name.endswith(HEADS)]
    return rest if any("emb" in t.name or "wte" in t.name for t in rest) else outer


def _is_buffer(tensor: StoredTensor) -> bool:
    causal_mask = tensor.name.endswith(".bias") and len(tensor.shape) == 4
    return causal_mask or tensor.name.endswith(BUFFERS)


def _layers_prefix(tensors: list[StoredTensor], num_layers: int) -> str:
    """The name before the layers' numbers, of the largest list that has them all."""
    found: dict[str, set[int]] = defaultdict(set)
    num_bytes: dict[str, int] = defaultdict(int)
    for tensor in tensors:
        if match := IN_LAYER.match(tensor.name):
            found[match[1] or ""].add(int(match[2]))
            num_bytes[match[1] or ""] += tensor.num_bytes
    whole = [prefix for prefix, indices in found.items() if indices >= set(range(num_layers))]
    if not whole:
        raise StartError(
            f"The checkpoint's weights have no {num_layers} numbered layers, as its config.json "
            "says they should, so they cannot be planned."
        )
    return max(whole, key=lambda prefix: num_bytes[prefix])


def _num_bytes(tensor: StoredTensor, dtype: str, quantization: str) -> int:
    if tensor.dtype not in CASTABLE:
        return tensor.num_bytes
    if quantization != "none":
        return _num_quantized_bytes(tensor, quantization)
    return int(tensor.num_elements * BYTES[dtype])


def _is_linear(tensor: StoredTensor) -> bool:
    """Whether bitsandbytes quantises it: the matrices of the layers, never embeddings or heads.
    Experts neither: transformers stacks them into tensors that are no linear layers."""
    in_layer = IN_LAYER.match(tensor.name) is not None and ".experts." not in tensor.name
    return in_layer and len(tensor.shape) == 2 and tensor.name.endswith(".weight")


def _num_quantized_bytes(tensor: StoredTensor, quantization: str) -> int:
    if quantization == "int8":  # a byte each, and a float32 scale for each row
        return tensor.num_elements + 4 * tensor.shape[0]
    num_scales = -(-tensor.num_elements // NF4_BLOCK)
    return -(-tensor.num_elements // 2) + num_scales + 4 * -(-num_scales // NF4_SCALES) + NF4_TABLES
