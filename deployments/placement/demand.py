"""What a model asks for under one quantisation: its weights part by part, and its workload."""

from dataclasses import dataclass

from deployments.placement.geometry import Geometry
from deployments.placement.weights import BYTES, DTYPES, Weights
from deployments.placement.workload import Working, Workload, working

SCRATCH_BYTES = 8  # of each number: unpacked in float32, and in the model's type
# The same of resident matrices on a CPU. bitsandbytes makes two bytes of a number before it makes
# one, and unpacks that to float32; nf4 it unpacks to the model's type, and arranges anew before the
# first use, on processors that have instructions for it.
INT8_PACKING_BYTES = 3
NF4_PACKING_BYTES = 7
INT8_UNPACKED_BYTES = 4
BLOCK_NUMBERS = 2**21  # that the streamer unpacks at a time on a CPU, or 64 rows of them
BLOCK_ROWS = 64


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint as far as planning goes. `dtype` is the one it will be loaded in, as torch
    names it. `adapter_bytes` are those of the adapters that are loaded with it."""

    name: str
    geometry: Geometry
    weights: Weights
    dtype: str
    adapter_bytes: int = 0

    @property
    def stored_name(self) -> str:
        """safetensors' name of `dtype`."""
        return DTYPES[self.dtype]

    @property
    def element_bytes(self) -> int:
        """Of one number."""
        return int(BYTES[self.stored_name])

    def working(self, workload: Workload) -> Working:
        """What it needs beside the weights."""
        return working(self.geometry, workload, self.element_bytes)


@dataclass(frozen=True, slots=True)
class Demand:
    """Bytes in memory. `repacked`: the layers cannot be read from the files as they are. `scratch`
    is what the largest quantised matrix takes while it is used, `block_scratch` what it takes if
    some of its rows are unpacked at a time. Resident on a CPU, it takes `packing` while it is
    loaded and `unpacked` while it is used. Adapters stay where the model runs, as they are."""

    layers: tuple[int, ...]
    outer: int
    working: Working
    repacked: bool
    scratch: int = 0
    block_scratch: int = 0
    packing: int = 0
    unpacked: int = 0
    adapters: int = 0
    can_stream: bool = True

    @property
    def fixed(self) -> int:
        """All that stays where the model runs, beside its layers."""
        return self.outer + self.working.total_bytes + self.scratch + self.adapters

    @property
    def fixed_in_blocks(self) -> int:
        """The same where quantised matrices are unpacked by blocks."""
        return self.fixed - self.scratch + min(self.scratch, self.block_scratch)

    @property
    def resident_on_cpu(self) -> int:
        """All that a resident model takes in RAM. It works when all of it is packed."""
        work = self.unpacked + self.working.total_bytes + self.working.joining_bytes
        return self.weight_bytes + self.adapters + max(self.packing, work)

    @property
    def weight_bytes(self) -> int:
        """All weights."""
        return self.outer + sum(self.layers)


def demand(model: Model, quantization: str, workload: Workload) -> Demand:
    """What `model` asks for."""
    dtype = model.stored_name
    weights = model.weights
    packing, unpacked = _scratch_on_cpu(model, quantization)
    return Demand(
        layers=tuple(layer.num_bytes(dtype, quantization) for layer in weights.layers),
        outer=weights.outer.num_bytes(dtype),
        working=model.working(workload),
        repacked=quantization != "none" or weights.has_parts or not weights.is_stored_as(dtype),
        scratch=0 if quantization == "none" else weights.largest_matrix * SCRATCH_BYTES,
        block_scratch=max(BLOCK_NUMBERS, BLOCK_ROWS * weights.longest_row) * SCRATCH_BYTES,
        packing=packing * weights.largest_matrix,
        unpacked=unpacked * weights.largest_matrix,
        adapters=model.adapter_bytes,
        can_stream=not model.geometry.is_quantized,
    )


def _scratch_on_cpu(model: Model, quantization: str) -> tuple[int, int]:
    """Bytes for each number of a matrix, while it is packed and while it is used."""
    stored = int(BYTES.get(model.weights.stored_dtype, 0))
    match quantization:
        case "int8":
            return stored + INT8_PACKING_BYTES, INT8_UNPACKED_BYTES
        case "nf4":
            return max(stored + 1, NF4_PACKING_BYTES), model.element_bytes
    return 0, 0
