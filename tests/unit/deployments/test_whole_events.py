import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.whole_events import MAX_HELD_BYTES, WholeEvents

ENDS = (b"\n\n", b"\r\n\r\n")


@given(st.lists(st.sampled_from([b"data: ", "☃".encode()[:2], b"x", b"\n", b"\r\n", b"\n\n"])))
def test_bytes_pass_unchanged_and_whole(pieces: list[bytes]) -> None:
    """However a stream is cut, all of it comes out in order, and only up to the ends of events."""
    events, out = WholeEvents(), b""
    for piece in pieces:
        whole = events.add(piece)
        assert not whole or whole.endswith(ENDS)
        out += whole
    assert out + events.flush() == b"".join(pieces)


@pytest.mark.parametrize("end", ENDS)
def test_a_whole_event_leaves_at_once(end: bytes) -> None:
    """Nothing that is whole waits for what comes next."""
    events = WholeEvents()
    assert events.add(b"data: 1" + end) == b"data: 1" + end
    assert events.add(b"data: 2" + end + b"dat") == b"data: 2" + end
    assert events.add(b"a: 3" + end) == b"data: 3" + end
    assert events.flush() == b""


def test_what_is_held_is_bounded() -> None:
    """A line without an end cannot fill the memory."""
    events = WholeEvents()
    assert events.add(b"x" * MAX_HELD_BYTES) == b""
    assert events.add(b"x") == b"x" * (MAX_HELD_BYTES + 1)
