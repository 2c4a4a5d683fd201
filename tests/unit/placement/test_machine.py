"""What the machine has left, as control groups and the kernel tell it."""

from pathlib import Path

import psutil
import pytest

from deployments.placement import machine

GIB = 2**30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose control groups are files of the test."""
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    return tmp_path


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("memory_", "memory.")).write_text(f"{content}\n")


def test_no_groups(groups: Path) -> None:
    """Without limits it is what the kernel says is available."""
    free = psutil.virtual_memory().available
    assert machine.available_ram_bytes() == pytest.approx(free, rel=0.1)


def test_version_2(groups: Path) -> None:
    """The tightest group above the process counts; file pages that it can drop are free."""
    (groups / "own").write_text("0::/outer/inner\n")
    write(groups / "cgroup/outer/inner", memory_max="max", memory_current=GIB)
    stat = f"anon 5\ninactive_file {GIB // 4}"
    write(groups / "cgroup/outer", memory_max=GIB, memory_current=GIB // 2, memory_stat=stat)
    assert machine.available_ram_bytes() == GIB - GIB // 4


def test_version_1(groups: Path) -> None:
    """The older version is understood, also where a container mounts its group as the root."""
    (groups / "own").write_text("4:memory:/docker/abc\n1:cpu:/x\n")
    write(
        groups / "cgroup/memory",
        memory_limit_in_bytes=GIB,
        memory_usage_in_bytes=GIB // 2,
        memory_stat=f"inactive_file 1\ntotal_inactive_file {GIB // 8}",
    )
    assert machine.available_ram_bytes() == GIB - GIB // 2 + GIB // 8
    write(groups / "cgroup/memory/docker/abc", memory_limit_in_bytes=GIB // 2)
    assert machine.available_ram_bytes() == GIB // 2


def test_a_limit_that_is_none(groups: Path) -> None:
    """Version 1 writes a huge number where there is no limit."""
    (groups / "own").write_text("4:memory:/\n")
    write(groups / "cgroup/memory", memory_limit_in_bytes=9223372036854771712)
    free = psutil.virtual_memory().available
    assert machine.available_ram_bytes() == pytest.approx(free, rel=0.1)


def test_disk(tmp_path: Path) -> None:
    """A folder that is yet to be made has the space of where it will be."""
    assert machine.free_disk_bytes(tmp_path / "a" / "b") > 0
