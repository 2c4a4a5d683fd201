from hypothesis import given
from hypothesis import strategies as st

from deployments.stops import StopStrings

letters = st.text("ab", min_size=1, max_size=4)


def fed(stops: StopStrings, pieces: list[str]) -> str:
    out = ""
    for piece in pieces:
        out += stops.add(piece)
        if stops.found:
            return out
    return out + stops.flush()


@given(strings=st.lists(letters, min_size=1, max_size=3), pieces=st.lists(letters, max_size=12))
def test_any_split_cuts_at_the_first_stop(strings: list[str], pieces: list[str]) -> None:
    """However text is split, it is cut where it would be if it came character by character."""
    by_character = fed(StopStrings(tuple(strings)), list("".join(pieces)))
    assert fed(StopStrings(tuple(strings)), pieces) == by_character
    assert not any(string in by_character for string in strings)


@given(strings=st.lists(letters, min_size=1, max_size=3), pieces=st.lists(letters, max_size=12))
def test_what_is_let_out_is_final(strings: list[str], pieces: list[str]) -> None:
    """Nothing that is let through is a part of the stop string that ends the text."""
    text = "".join(pieces)
    stops, out = StopStrings(tuple(strings)), ""
    for piece in pieces:
        out += stops.add(piece)
        if stops.found:
            break
    assert text.startswith(out)
    assert not stops.found or any(text[len(out) :].startswith(string) for string in strings)


def test_only_a_beginning_is_held_back() -> None:
    """Text that cannot begin a stop string leaves at once."""
    stops = StopStrings(("\n\nUser:", "###"))
    assert stops.add("Hello\n") == "Hello"
    assert stops.add("there #") == "\nthere "
    assert stops.add("# no") == "## no"
    assert stops.add("\n\nUse") == ""
    assert stops.flush() == "\n\nUse"


def test_disarmed_lets_whole_stop_strings_through() -> None:
    """Before min_tokens a stop string is text; one that is completed later still counts."""
    stops = StopStrings(("ab",))
    assert stops.add("ab a", armed=False) == "ab "
    assert stops.add("b") == ""
    assert stops.found


def test_without_stop_strings_text_passes() -> None:
    """No stop strings, no delay."""
    assert StopStrings(()).add("anything") == "anything"
