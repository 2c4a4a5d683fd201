"""Amounts of memory as operators write and read them: `15GiB`, `24 GB`, or a number of bytes."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
WRITTEN = re.compile(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)\s*")


def parse(amount: object) -> int:
    """Bytes. Raises: ValueError for what is no amount."""
    if isinstance(amount, int) and not isinstance(amount, bool) and amount >= 0:
        return amount
    match = WRITTEN.fullmatch(amount) if isinstance(amount, str) else None
    if match is None or match[2].lower() not in UNITS:
        raise ValueError("should be an amount of memory, such as 15GiB, 24GB or 512MiB")
    return int(float(match[1]) * UNITS[match[2].lower()])


def spell(num_bytes: float) -> str:
    """Three or four digits and the unit that suits them: `5.594 GiB`."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(num_bytes) >= unit:
            return f"{num_bytes / unit:.4g} {name}"
    return f"{num_bytes:.0f} B"


Amount = Annotated[int, BeforeValidator(parse), Field(ge=0)]
