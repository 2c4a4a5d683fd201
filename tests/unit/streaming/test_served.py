"""A checkpoint larger than its budget, through the backend: placed, streamed, and lost."""

import asyncio
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deployments.errors import BackendUnavailable, StartError, WeightsLost
from deployments.huggingface.backend import HuggingFaceBackend
from deployments.huggingface.streaming.streamer import Streamer
from deployments.placement import machine
from deployments.placement.arrangement import CPU_LIBRARY_BYTES, DISK_SLOTS, slot_bytes
from deployments.placement.demand import demand
from deployments.placement.source import from_folder
from deployments.placement.workload import Workload
from tests.polling import PATIENCE_S, until
from tests.unit.huggingface.asking import COMPLETIONS, Got, ask, started
from tests.unit.huggingface.gate import Gate, gated
from tests.unit.huggingface.models import save_large

ASKED: Mapping[str, Any] = {"batch": 4, "context": 64}
SPARE_BYTES = 20 * 2**20  # two layers, and a little
pytestmark = pytest.mark.usefixtures("steady_ram")


@pytest.fixture
def gate() -> Iterator[Gate]:
    with gated() as gate:
        yield gate


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A checkpoint with 94 MB of weights in ten layers."""
    return save_large(tmp_path)


def memory(folder: Path) -> dict[str, Any]:
    """A budget in which some layers are resident, and most are not."""
    needs = demand(from_folder(folder, "float32"), "none", Workload(**ASKED))
    fixed = needs.outer + needs.working.total_bytes + DISK_SLOTS * slot_bytes(needs)
    cpu = machine.own_ram_bytes() + CPU_LIBRARY_BYTES + fixed + SPARE_BYTES
    return {**ASKED, "cpu": cpu, "disk": str(folder)}


def streamer_of(backend: HuggingFaceBackend) -> Streamer:
    streamer = backend.engine._scheduler._decoder._model.streamer
    assert isinstance(streamer, Streamer)
    return streamer


def texts(got: Got) -> list[str]:
    return [choice["text"] for choice in got.body["choices"]]


async def test_answers_are_those_of_the_resident_model(large: Path, gate: Gate) -> None:
    """Eight requests at a time get the same answers, and share each pass over the weights."""
    asked = [{"prompt": "abc" * n, "temperature": 0, "max_tokens": 5} for n in range(1, 9)]
    async with started(large) as backend:
        expected = [await ask(backend, COMPLETIONS, **body) for body in asked]
    async with started(large, memory=memory(large)) as backend:
        streamer = streamer_of(backend)
        layouts, before = streamer.ring._layouts, streamer.reader.num_read_bytes
        gate.hold()  # until all are there
        asking = [asyncio.create_task(ask(backend, COMPLETIONS, **body)) for body in asked]
        await until(lambda: backend.engine.num_running + backend.engine.num_waiting == len(asked))
        gate.open()
        got = await asyncio.gather(*asking)
        num_passes = (streamer.reader.num_read_bytes - before) / sum(
            of.read_bytes for of in layouts
        )
    assert [texts(one) for one in got] == [texts(one) for one in expected]
    # Alone they would take 8 prefills and 8 x 4 steps.
    assert num_passes < 8 + 12


def truncate(weights: Path, streamer: Streamer) -> None:
    os.truncate(weights, 1_000_000)


def overwrite(weights: Path, streamer: Streamer) -> None:
    with weights.open("r+b") as file:
        file.write(b"\0")


def make_unreadable(weights: Path, streamer: Streamer) -> None:
    """The same file, but whoever reads from it gets an error of the system."""
    descriptor = os.open(weights, os.O_WRONLY)
    os.dup2(descriptor, streamer.reader._files[weights].descriptor)
    os.close(descriptor)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        # Whichever is noticed first: that the file is another, or that it ends.
        (truncate, ("has been changed", "cannot be read any more (it ends too soon)")),
        (overwrite, ("has been changed",)),
        (make_unreadable, ("cannot be read any more (Bad file descriptor)",)),
    ],
)
async def test_lost_weights_fail_all_requests(
    large: Path, harm: Callable[[Path, Streamer], None], says: tuple[str, ...]
) -> None:
    """When a file is cut or overwritten, or a read fails, requests in flight and new ones get a
    503 that says so, the replica is unhealthy, and nothing hangs."""
    async with started(large, memory=memory(large)) as backend:
        assert streamer_of(backend).ring.num_slots == DISK_SLOTS
        asked: dict[str, Any] = {"prompt": "abc", "max_tokens": 200, "ignore_eos": True}
        running = [asyncio.create_task(ask(backend, COMPLETIONS, **asked)) for _ in range(6)]
        engine = backend.engine
        await until(lambda: engine.num_running + engine.num_waiting == len(running))
        harm(large / "model.safetensors", streamer_of(backend))
        ended = await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), PATIENCE_S)
        assert {type(error) for error in ended} == {WeightsLost}
        assert all(error.status == 503 for error in ended)
        reasons = {error.message for error in ended}
        assert all(any(f"model.safetensors {said}" in told for said in says) for told in reasons)
        with pytest.raises(BackendUnavailable, match="weights are lost"):
            await backend.check_health()
        with pytest.raises(BackendUnavailable, match="weights are lost"):
            await ask(backend, COMPLETIONS, prompt="abc")


async def test_a_truncated_shard_is_found_at_the_start(large: Path) -> None:
    """A shard that is shorter than its header says is refused before anything is loaded."""
    asked = memory(large)
    os.truncate(large / "model.safetensors", 1_000_000)
    with pytest.raises(StartError, match="truncated or damaged"):
        async with started(large, memory=asked):
            pass


async def test_nothing_is_written_while_serving(large: Path) -> None:
    """A disk that fills up, or a checkpoint that is deleted, harms no running replica: all that it
    has of its files is open already, and only for reading."""
    async with started(large, memory=memory(large)) as backend:
        expected = await ask(backend, COMPLETIONS, prompt="abc", temperature=0, max_tokens=5)
        modes = {
            fcntl.fcntl(file.descriptor, fcntl.F_GETFL) & os.O_ACCMODE
            for file in streamer_of(backend).reader._files.values()
        }
        assert modes == {os.O_RDONLY}
        shutil.rmtree(large)
        got = await ask(backend, COMPLETIONS, prompt="abc", temperature=0, max_tokens=5)
        assert texts(got) == texts(expected)
        await backend.check_health()
