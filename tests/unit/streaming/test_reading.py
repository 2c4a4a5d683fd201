"""What is read, how often, and from where."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from deployments.errors import WeightsLost
from deployments.huggingface.streaming.layout import (
    DEVICE_ALIGNMENT_BYTES,
    PAGE_BYTES,
    lay_out,
    on_device,
)
from deployments.huggingface.streaming.reader import Reader
from deployments.huggingface.streaming.ring import Ring, allocate
from deployments.huggingface.streaming.streamer import Streamer
from deployments.placement.header import read_header

from .checkpoints import save_deep, streaming

SIZES = st.lists(st.integers(0, 40_000), min_size=1, max_size=12)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(sizes=SIZES, chosen=st.data())
def test_tensors_arrive_as_they_were_saved(
    sizes: list[int], chosen: st.DataObject, tmp_path: Path
) -> None:
    """Any of a file's tensors, whatever lies before, between and behind them."""
    tensors = {f"t{n}": torch.randn(size, dtype=torch.bfloat16) for n, size in enumerate(sizes)}
    save_file(tensors, tmp_path / "a")
    wanted = chosen.draw(st.lists(st.sampled_from([*tensors]), min_size=1, unique=True))
    layout = lay_out(tensor for tensor in read_header(tmp_path / "a") if tensor.name in wanted)
    reader, slot = Reader([tmp_path / "a"]), allocate(max(layout.num_bytes, 1))
    try:
        for block in reader.read(layout.ranges, memoryview(slot.numpy())):
            block.result()
        assert {view.name for view in layout.views} == set(wanted)
        assert all(torch.equal(view.of(slot), tensors[view.name]) for view in layout.views)
        device, there = on_device(layout), torch.zeros_like(slot)
        for piece in device.pieces:
            source = slot[piece.source : piece.source + piece.num_bytes]
            there[piece.target : piece.target + piece.num_bytes] = source
        assert {view.name for view in device.views} == set(wanted)
        assert all(torch.equal(view.of(there), tensors[view.name]) for view in device.views)
    finally:
        reader.close()


def test_ranges_are_whole_pages(tmp_path: Path) -> None:
    """Reads begin and end with pages, as direct reads must; neighbours are read in one piece."""
    save_file({name: torch.randn(9000) for name in "abcdef"}, tmp_path / "a")
    tensors = {tensor.name: tensor for tensor in read_header(tmp_path / "a")}
    together = lay_out(tensors[name] for name in "bcd").ranges
    apart = lay_out(tensors[name] for name in "af").ranges
    assert (len(together), len(apart)) == (1, 2)
    size = (tmp_path / "a").stat().st_size
    for part in (*together, *apart):
        assert part.start % PAGE_BYTES == part.offset % PAGE_BYTES == 0
        assert part.num_bytes % PAGE_BYTES == 0 or part.start + part.num_bytes == size


def test_a_device_has_matrices_where_its_kernels_want_them(tmp_path: Path) -> None:
    """Whatever the length of a file's header, on a GPU layers begin where torch's own tensors may,
    and no more than their bytes is copied."""
    for name in ("a", "abcdefghi"):
        save_file({name: torch.randn(64, 64), f"{name}.b": torch.randn(64)}, tmp_path / name)
    tensors = [*read_header(tmp_path / "a"), *read_header(tmp_path / "abcdefghi")]
    assert any(tensor.start % DEVICE_ALIGNMENT_BYTES for tensor in tensors)
    device = on_device(lay_out(tensors))
    assert [view.offset % DEVICE_ALIGNMENT_BYTES for view in device.views] == [0] * 4
    assert [piece.num_bytes for piece in device.pieces] == [64 * 65 * 4] * 2


@pytest.mark.parametrize("num_slots", [2, 3, 5])
def test_each_step_reads_every_streamed_layer_once(num_slots: int, tmp_path: Path) -> None:
    """Reading goes on across steps, ahead by the slots that are free, and reads nothing twice."""
    save_deep("llama", tmp_path, torch.float32)
    model, streamer = streaming(tmp_path, torch.float32, num_slots, num_resident=1)
    ids, num_steps = torch.zeros((1, 3), dtype=torch.long), 6
    before = settled(streamer)
    with torch.inference_mode():
        for _ in range(num_steps):
            model(ids)
    num_read = settled(streamer) - before
    layouts = streamer.ring._layouts
    # A slot that only one layer has keeps it.
    count = len(layouts)
    read = [of for n, of in enumerate(layouts) if n >= num_slots or n + num_slots < count]
    assert num_read == num_steps * sum(layout.read_bytes for layout in read)


def settled(streamer: Streamer) -> int:
    """The bytes read when all slots are full, with the layers that the next step begins with."""
    for layer in range(streamer.ring.num_slots):
        streamer.ring.acquire(layer)
    return streamer.reader.num_read_bytes


def test_reads_leave_the_page_cache_alone(tmp_path: Path) -> None:
    """On a disk with direct reads, nothing that is streamed stays in the page cache."""
    save_deep("llama", tmp_path, torch.float32)
    _, streamer = streaming(tmp_path, torch.float32, 2)
    assert streamer.reader.is_direct


def test_without_direct_reads(tmp_path: Path) -> None:
    """A filesystem without direct reads is read through the cache, with the same bytes."""
    shm = Path("/dev/shm")
    if not shm.is_dir():
        pytest.skip("no tmpfs here")
    path = shm / f"roundhouse-test-{os.getpid()}"
    tensor = torch.randn(50_000)
    try:
        save_file({"a": tensor}, path)
        layout = lay_out(read_header(path))
        reader, slot = Reader([path]), allocate(layout.num_bytes)
        for block in reader.read(layout.ranges, memoryview(slot.numpy())):
            block.result()
        assert torch.equal(layout.views[0].of(slot), tensor)
        reader.close()
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("harm", ["truncate", "write"])
def test_a_changed_file_is_noticed(harm: str, tmp_path: Path) -> None:
    """A file that is cut or written to is not used any more, and says so by name."""
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.randn(50_000)}, path)
    layout = lay_out(read_header(path))
    reader = Reader([path])
    ring = Ring([layout, layout, layout], 2, reader)
    ring.acquire(0)
    if harm == "truncate":
        os.truncate(path, 10_000)
    else:
        with path.open("r+b") as file:
            file.seek(1000)
            file.write(b"\0")
    ring.release(0)
    with pytest.raises(WeightsLost, match=r"model\.safetensors has been changed"):
        ring.acquire(2)
    with pytest.raises(WeightsLost):
        ring.acquire(2)
    reader.close()


def test_an_index_that_lists_files(tmp_path: Path) -> None:
    """The shards of a checkpoint are those that its index lists."""
    save_deep("llama", tmp_path, torch.float32, max_shard_size="40KB")
    listed = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    _, streamer = streaming(tmp_path, torch.float32, 2)
    assert {path.name for path in streamer.reader._files} == set(listed.values())


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no such pages"
)
def test_slots_ask_for_huge_pages() -> None:
    """Memory that layers are read into is marked for huge pages: `hg` among the kernel's flags."""
    slot = allocate(8 * 2**20)
    flags = next(
        block.rpartition("VmFlags:")[2].split("\n")[0].split()
        for block in re.split(
            r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()
        )
        if block and holds(block, slot.data_ptr())
    )
    assert "hg" in flags


def holds(mapping: str, address: int) -> bool:
    start, end = (int(part, 16) for part in mapping.split(" ", 1)[0].split("-"))
    return start <= address < end
