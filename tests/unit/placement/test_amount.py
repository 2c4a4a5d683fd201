"""Amounts of memory as they are written in args and on the command line."""

import pytest

from deployments.config import HuggingFaceConfig
from deployments.placement.amount import parse, spell


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("15GiB", 15 * 2**30),
        ("24 GB", 24 * 10**9),
        ("1.5mib", 3 * 2**19),
        ("512", 512),
        (4096, 4096),
        ("0", 0),
    ],
)
def test_amounts(written: object, expected: int) -> None:
    """Binary and decimal units, in any case, or plain bytes."""
    assert parse(written) == expected


@pytest.mark.parametrize("written", ["", "GiB", "-1GiB", "1 GiBs", "1e9", -1, None, True, 1.5, []])
def test_no_amounts(written: object) -> None:
    """Anything else is refused, with an example."""
    with pytest.raises(ValueError, match="such as 15GiB"):
        parse(written)


def test_spelling() -> None:
    """Amounts are told in the unit that suits them."""
    assert [spell(n) for n in (0, 1023, 2**20, 15 * 2**30)] == ["0 B", "1023 B", "1 MiB", "15 GiB"]


def test_args() -> None:
    """`memory` in the args of a model takes amounts, and refuses what is none, by name."""
    config = HuggingFaceConfig(checkpoint="c", memory={"gpu": "15GiB", "cpu": "24GiB"})
    assert config.memory
    assert (config.memory.gpu, config.reserved_ram_bytes) == (15 * 2**30, 24 * 2**30)
    assert HuggingFaceConfig(checkpoint="c").reserved_ram_bytes is None
    for wrong in ({"cpu": "much"}, {"ram": "1GiB"}, {"streaming": "on"}, {"batch": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            HuggingFaceConfig(checkpoint="c", memory=wrong)
