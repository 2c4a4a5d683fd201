"""Huge pages for what torch allocates on a CPU.

Rows that join or leave have their keys and values copied into fresh memory, which the system hands
out by the page, emptied: by pages of 2 MiB that takes half as long as by those of 4 KiB.
"""

import os

# torch reads it at its first allocation, and asks for them where the system lets programs ask.
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}


def use_huge_pages() -> None:
    """To be called before torch is imported; what the environment says already stands."""
    for name, value in HUGE_PAGES.items():
        os.environ.setdefault(name, value)
