"""How long a plan takes for a checkpoint of 70 B parameters, of which only the headers are read."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.stack import ROOT

HIDDEN, INTERMEDIATE, KEYS, NUM_LAYERS, VOCABULARY, NUM_SHARDS = 8192, 28672, 1024, 80, 32000, 15
LAYER = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
}
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 4096,
    "dtype": "bfloat16",
}


def plan_s(repetitions: int = 3) -> float:
    """Seconds of the whole command, Python's start included: the best of some."""
    with tempfile.TemporaryDirectory(prefix="llama-70b-") as folder:
        _write_headers(Path(folder))
        command = [sys.executable, "-m", "serve_app", "plan", folder]
        command += ["--gpu", "24GiB", "--cpu", "140GiB", "--quantization", "none", "--json"]
        return min(_seconds(command) for _ in range(repetitions))


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - began


def _write_headers(folder: Path) -> None:
    """Files of the right lengths with nothing in them: 138 GB of holes."""
    shapes = {
        f"model.layers.{n}.{k}.weight": v for n in range(NUM_LAYERS) for k, v in LAYER.items()
    }
    around: dict[str, tuple[int, ...]] = {"model.norm": (HIDDEN,)}
    around |= dict.fromkeys(("model.embed_tokens", "lm_head"), (VOCABULARY, HIDDEN))
    shapes |= {f"{name}.weight": shape for name, shape in around.items()}
    names, weight_map = [*shapes], {}
    for shard in range(NUM_SHARDS):
        file = f"model-{shard:02}.safetensors"
        part = names[shard::NUM_SHARDS]
        _write_header(folder / file, {name: shapes[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(CONFIG))


def _write_header(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        start, size = end, 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        end = start + size
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
