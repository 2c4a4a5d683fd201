"""`roundhouse plan`: what it reads, prints, refuses, and how soon."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from deployments.placement.report import Report
from deployments.placement.source import from_folder
from serve_app.cli import main
from tests.unit.placement.tensors import llama_config, llama_shapes, write_config, write_weights

GEOMETRY_70B = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}
PARAMETERS_70B = 68_976_648_192


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The headers of Llama-2-70B in 15 shards; their 138 GB are holes."""
    path = tmp_path_factory.mktemp("llama-70b")
    config = llama_config(**GEOMETRY_70B)
    write_config(path, config)
    shapes = [*llama_shapes(config).items()]
    size = -(-len(shapes) // 15)
    shards = {f"model-{n}.safetensors": dict(shapes[n * size : (n + 1) * size]) for n in range(15)}
    for name, part in shards.items():
        write_weights(path / name, part)
    weight_map = {tensor: name for name, part in shards.items() for tensor in part}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return path


def run(*arguments: object) -> int:
    return main(["plan", *(str(argument) for argument in arguments)])


def test_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan of a 70B model on a 24 GB GPU tells all that an operator must know."""
    assert run(folder, "--gpu", "24GB", "--cpu", "140GiB", "--quantization", "none") == 0
    out = capsys.readouterr().out
    for said in (
        "LlamaForCausalLM, 80 layers",
        "parameters       68,976,648,192",
        "128.5 GiB as BF16: 1.594 GiB a layer",
        "327,680 bytes a token",
        "no: resident: needs",
        "yes: streamed from RAM",
        "tokens/s per sequence",
        "by the link",
        "at this context",
    ):
        assert said in out


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json is the plan by a schema, every number of the table in it."""
    arguments = ("--gpu", "24GB", "--cpu", "64GiB", "--disk", folder, "--json", "--batch", 1)
    assert run(folder, *arguments, "--disk-gbps", 5, "--quantization", "none") == 0
    told = Report.model_validate_json(capsys.readouterr().out)
    assert told.sizes.parameters == PARAMETERS_70B
    assert told.sizes.stored_bytes == 2 * PARAMETERS_70B
    assert told.sizes.kv_bytes_per_token == 2 * 80 * 8 * 128 * 2
    assert [no.name for no in told.rejected] == ["resident", "streamed from RAM"]
    placed = told.placement
    assert placed
    assert placed.name == "streamed from disk"
    assert len(placed.layers) == 80
    assert set(placed.layers) == {"resident", "ram", "disk"}
    assert (
        placed.read_bytes_per_step
        == placed.layers.count("disk") * told.sizes.stored_bytes_per_layer[0]
    )
    assert placed.speed.limited_by == "disk"
    assert placed.speed.step_s == pytest.approx(placed.read_bytes_per_step / 5e9)


def test_refusal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot run is refused with a budget that could; with that budget it is planned."""
    arguments = (folder, "--gpu", 0, "--cpu", "2GiB", "--disk", folder, "--quantization", "none")
    assert run(*arguments) == 1
    assert "The smallest budget for batch 8 and context 2048 is" in capsys.readouterr().out
    assert run(*arguments, "--json") == 1
    told = Report.model_validate_json(capsys.readouterr().out)
    assert told.placement is None
    assert told.smallest
    assert run(*arguments, "--cpu", told.smallest.needs.cpu_bytes) == 0
    assert run(*arguments, "--cpu", told.smallest.needs.cpu_bytes - 1) == 1


def test_only_headers_are_read(folder: Path) -> None:
    """Of 138 GB of weights not a byte beyond the headers is read."""
    headers = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            headers += 8 + int.from_bytes(opened.read(8), "little")
    others = sum(file.stat().st_size for file in folder.glob("*.json"))
    before = psutil.Process().io_counters().read_chars
    from_folder(folder)
    assert psutil.Process().io_counters().read_chars - before < headers + others + 10_000


def test_no_heavy_library_is_loaded(folder: Path) -> None:
    """The plan of a 70B checkpoint needs neither torch nor transformers, whose import takes longer
    than it may."""
    code = (
        "import sys\n"
        "from serve_app.cli import main\n"
        f"main(['plan', {str(folder)!r}, '--gpu', '24GiB'])\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'ray')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == 0


def test_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    """A model_type of the catalogue is planned from where its checkpoint is."""
    assert run("demo", "--json", "--gpu", 0, "--cpu", "20GiB", "--measure") == 0
    told = Report.model_validate_json(capsys.readouterr().out)
    assert (told.model, told.layers) == ("demo", 4)
    assert told.placement
    assert told.placement.speed.bandwidths == "measured"


def test_a_config_alone_will_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without weights, the sizes follow from the config: here Bloom-3B's."""
    config = {
        "model_type": "bloom",
        "architectures": ["BloomForCausalLM"],
        "hidden_size": 2560,
        "n_layer": 30,
        "num_attention_heads": 32,
        "vocab_size": 250880,
        "torch_dtype": "float16",
    }
    write_config(tmp_path, config)
    assert run(tmp_path, "--gpu", "15GiB", "--json") == 0
    told = Report.model_validate_json(capsys.readouterr().out)
    assert told.sizes.parameters == 3_002_557_440
    assert told.sizes.kv_bytes_per_token == 307_200
    assert told.placement
    assert told.placement.name == "resident"


def test_no_longer_than_the_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A context beyond the model's is planned as it is served: as the model's."""
    for context, planned in ((100, 100), (10**6, 4096)):
        assert run(folder, "--gpu", "800GiB", "--context", context, "--json") == 0
        assert Report.model_validate_json(capsys.readouterr().out).context == planned


def test_adapters(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Adapters are part of what must fit, in float32 whatever they are stored as."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    write_weights(tmp_path / "adapter_model.safetensors", {"a": (1024, 1024)}, "BF16")
    arguments = (folder, "--gpu", "24GB", "--cpu", "140GiB", "--quantization", "none", "--json")
    told = []
    for more in ((), ("--adapter", tmp_path, "--adapter", tmp_path)):
        assert run(*arguments, *more) == 0
        told.append(Report.model_validate_json(capsys.readouterr().out))
    assert [plan.sizes.adapter_bytes for plan in told] == [0, 2 * 4 * 2**20]
    resident = [plan.rejected[0].needs.gpu_bytes for plan in told]
    assert resident[1] - resident[0] == 2 * 4 * 2**20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo", "--adapter", "/no/such"], "/no/such"),
        (["no-such"], "not in the catalogue"),
        (["/no/such"], "has no config.json"),
        (["/etc/hostname"], "has no config.json"),
    ],
)
def test_nothing_to_plan(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no model is said in a sentence."""
    assert run(*arguments) == 1
    assert says in capsys.readouterr().err


def test_layers_that_the_config_does_not_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What could not be loaded is not planned."""
    config = llama_config(num_hidden_layers=8)
    write_weights(tmp_path / "model.safetensors", llama_shapes(config))
    write_config(tmp_path, config | {"num_hidden_layers": 7})
    assert run(tmp_path) == 1
    assert "9 weights of layers that its config.json does not name" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--gpu", "much"], ["--batch", "0"], ["--disk-gbps", "-1"], ["--context", "x"]]
)
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A bad argument is named with what it should be."""
    with pytest.raises(SystemExit):
        run("demo", *arguments)
    assert f"{arguments[0]}: should be" in capsys.readouterr().err
