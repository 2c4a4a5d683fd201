"""Keys and values on a CPU are in huge pages, where the system has them."""

import subprocess
import sys
from pathlib import Path

import pytest

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ALLOCATE = """
from pathlib import Path
from deployments.huggingface.pages import use_huge_pages
use_huge_pages()
import torch
states = torch.ones(32 * 2**20, dtype=torch.uint8)
lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("AnonHugePages")))
"""


@pytest.mark.skipif(
    not SETTING.exists() or "[never]" in SETTING.read_text(), reason="the system has none to give"
)
def test_huge_pages() -> None:
    """What torch allocates, once it has been asked for, is mapped by the 2 MiB."""
    done = subprocess.run([sys.executable, "-c", ALLOCATE], capture_output=True, check=True)
    assert int(done.stdout) >= 16 * 1024
