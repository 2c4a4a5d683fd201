"""Memory that is freed, and whether the system has it back."""

import contextlib
import ctypes

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
MMAP_THRESHOLD_BYTES = 2**20


def return_freed_memory() -> None:
    """Lets the C library give large freed blocks back to the system. It would learn to keep them:
    caches that grow layer by layer then leave holes behind that the next ones do not fit in, and
    matrices that are packed one by one leave as much as they took."""
    with contextlib.suppress(AttributeError, OSError):  # a C library without mallopt
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
