"""Frames: what is put together at one end is cut apart at the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.exchange import Head, Item, Tail
from serve_app.wire.frames import (
    MAX_PAYLOAD_BYTES,
    PREFIX,
    BrokenFrame,
    Frames,
    Kind,
    frames_of,
    item_of,
)

ITEMS = st.one_of(
    st.binary(min_size=1, max_size=200),
    st.builds(Tail, st.integers(0, 1 << 40), st.integers(0, 1 << 40)),
    st.builds(Head, st.integers(100, 599), st.text(), st.just((("retry-after", "1"),))),
)


@given(st.lists(st.tuples(st.integers(0, (1 << 32) - 1), ITEMS)), st.integers(1, 50))
def test_items_arrive_as_they_left(items: list[tuple[int, Item]], step: int) -> None:
    """Whatever the pieces that the network makes of them."""
    data = b"".join(piece for stream, item in items for piece in frames_of(stream, item))
    frames, came = Frames(), []
    for at in range(0, len(data), step):
        for stream, kind, payload in frames.cut(data[at : at + step]):
            came.append((stream, item_of(kind, payload)))
    assert came == items


def test_no_frame_is_longer_than_its_bound() -> None:
    """A long answer goes in several, so that it never holds up those beside it for long."""
    data = bytes(range(256)) * (MAX_PAYLOAD_BYTES // 256) + b"rest"
    pieces = list(frames_of(7, data))
    payloads = [payload for piece in pieces for _, _, payload in Frames().cut(piece)]
    assert [len(payload) for payload in payloads] == [MAX_PAYLOAD_BYTES, 4]
    assert b"".join(payloads) == data


@pytest.mark.parametrize(("kind", "length"), [(99, 0), (Kind.BYTES, MAX_PAYLOAD_BYTES + 1)])
def test_what_is_no_frame_is_refused(kind: int, length: int) -> None:
    """At its prefix: nothing is kept for a payload that nobody may send."""
    with pytest.raises(BrokenFrame):
        list(Frames().cut(PREFIX.pack(1, kind, length)))


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x93\x01\x02\x03"])
def test_what_is_no_head_is_refused(payload: bytes) -> None:
    """A head that cannot be read is an error of the wire."""
    with pytest.raises(BrokenFrame):
        item_of(Kind.HEAD, payload)
